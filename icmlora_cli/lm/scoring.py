"""Scoring answers: exact match under greedy decoding, and negative log-likelihood."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.lm.batching import answer_log_probs, scoring_batches
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded


@dataclass(frozen=True)
class Scores:
    """Scores of one adapter on one task, example by example.

    Args:
        exact: whether greedy decoding writes the whole answer.
        nll: negative log-likelihood of the answer, nats per token.
    """

    exact: tuple[bool, ...]
    nll: tuple[float, ...]

    @property
    def exact_match(self) -> float:
        """Share of exact answers, 0 to 1."""
        return sum(self.exact) / len(self.exact)

    @property
    def mean_nll(self) -> float:
        """Mean over examples of the answer's nats per token."""
        return sum(self.nll) / len(self.nll)


def score_rows(
    loaded: LoadedBase,
    rows: Sequence[Encoded],
    *,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> Scores:
    """Score answers with one forward pass each.

    Greedy decoding writes an answer exactly when each of its tokens is the model's first choice after the tokens
    before it, so exact match needs no generation. (An answer spelled with other tokens counts as wrong.)

    Args:
        loaded: the base, with whatever is merged into it.
        rows: the examples.
        batch_size: rows a forward pass.
        on_batch: told how many rows are done.
    """
    exact = [False] * len(rows)
    nll = [0.0] * len(rows)
    done = 0
    for indices in scoring_batches([row.length for row in rows], batch_size=batch_size):
        for part, (sums, right) in loaded.micro_batch.parts("scoring", indices, lambda part: _read(loaded, rows, part)):
            for index, log_likelihood, is_right in zip(part, sums, right, strict=True):
                exact[index], nll[index] = is_right, -log_likelihood / len(rows[index].answer_ids)
            done += len(part)
            if on_batch is not None:
                on_batch(done)
    return Scores(tuple(exact), tuple(nll))


def _read(loaded: LoadedBase, rows: Sequence[Encoded], indices: Sequence[int]) -> tuple[list[float], list[bool]]:
    """Return each answer's log-likelihood in nats, and whether it is exact; the host waits for the device twice."""
    batch = loaded.batch([rows[index] for index in indices])
    with torch.inference_mode():
        log_probs, right = answer_log_probs(loaded.model, batch)
        return log_probs.cpu().double().sum(1).tolist(), right.all(1).tolist()  # MPS has no float64
