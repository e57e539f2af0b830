"""Choosing among samples of a generator by examples, and refusing what is no better than the base or the average."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from icmlora_cli.errors import GateRefusedError, UsageError
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import aggregate, max_tokens, score_texts
from icmlora_cli.lm.prompts import Encoded, encode, encode_text
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.gen.options import ExampleFile
from icmlora_cli.workflows.progress import OnProgress, Progress


@dataclass(frozen=True)
class CandidateScore:
    """Scores on examples.

    Args:
        nll: mean over examples of the answer's nats per token; of plain text, nats per token of all of it.
        exact_match: share of answers that greedy decoding writes, 0 to 1; None of plain text.
    """

    nll: float
    exact_match: float | None


@dataclass(frozen=True)
class Candidate:
    """A sample, as it would be written, and its scores.

    Args:
        seed: of z; None for the prior's mean.
        nll: see ``CandidateScore``; None where it is not finite.
        exact_match: see ``CandidateScore``.
    """

    seed: int | None
    nll: float | None
    exact_match: float | None


@dataclass(frozen=True)
class Selection:
    """What examples said of the samples.

    Args:
        file: the examples'.
        examples: how many.
        shown: how many of them the generator was shown too.
        candidates: in the order in which they were drawn.
        kept: index of the one that was kept: the lowest NLL, the first of equals.
        base: scores of the base alone.
        average: of the average adapter; None without the gate, or where none of its adapters is here.
        averaged: how many adapters the average is of.
        learned: how many the generator learned from.
    """

    file: str
    examples: int
    shown: int
    candidates: tuple[Candidate, ...]
    kept: int
    base: CandidateScore
    average: CandidateScore | None = None
    averaged: int = 0
    learned: int = 0


def encoded(loaded: LoadedBase, file: ExampleFile) -> tuple[Encoded, ...]:
    """Return a file's examples as token ids: one row an example, or, of plain text, one a window.

    Raises:
        UsageError: if an example is longer than what the base reads.
    """
    if file.template.kind == "text":
        passages = (encode_text(loaded.tokenizer, item.output) for item in file.examples)
        numbered = [(index, row) for index, rows in enumerate(passages, start=1) for row in rows]
    else:
        rendered = (encode(loaded.tokenizer, file.template, example) for example in file.examples)
        numbered = list(enumerate(rendered, start=1))
    limit = max_tokens(loaded)
    for index, row in numbered:
        if row.length > limit:
            raise UsageError(
                f"example {index} has {row.length:,} tokens; the base reads {limit:,} at once",
                where=str(file.path.absolute()),
                hint="leave it out, or shorten it",
            )
    return tuple(row for _, row in numbered)


@dataclass(frozen=True)
class CandidateScorer:
    """Scores adapters on examples.

    Args:
        loaded: the base.
        file: the examples.
        rows: the examples as token ids; none of plain text.
    """

    loaded: LoadedBase
    file: ExampleFile
    rows: tuple[Encoded, ...]

    @classmethod
    def of(cls, loaded: LoadedBase, file: ExampleFile) -> "CandidateScorer":
        """Return the judge of a file's examples.

        Raises:
            UsageError: if an example is longer than what the base reads.
        """
        if file.template.kind == "text":
            return cls(loaded, file, ())
        return cls(loaded, file, encoded(loaded, file))

    def __call__(self, adapter: Adapter | None) -> CandidateScore:
        """Return the scores of an adapter merged into the base; None scores the base alone."""
        with merged(self.loaded.model, adapter):
            if self.file.template.kind == "text":
                texts = score_texts(self.loaded, [example.output for example in self.file.examples])
                return CandidateScore(aggregate(texts).nats_per_token, None)
            scores = score_rows(self.loaded, self.rows)
            return CandidateScore(scores.mean_nll, scores.exact_match)


def seeds_of(count: int, seed: int | None) -> tuple[int | None, ...]:
    """Return the seeds of several samples: the prior's mean, then draws from ``seed`` on; of one, ``seed`` itself."""
    first = seed or 0
    return (seed,) if count == 1 else (None, *range(first, first + count - 1))


def best_of(
    make: Callable[[int | None], Adapter],
    seeds: Sequence[int | None],
    judge: CandidateScorer,
    on_progress: OnProgress,
) -> tuple[Adapter, int, tuple[Candidate, ...]]:
    """Return the adapter with the lowest NLL, its index, and all candidates. Only the best so far is kept in memory.

    Args:
        make: returns the adapter of a seed, as it would be written.
        seeds: of the samples.
        judge: scores them.
        on_progress: told of each.

    Raises:
        UsageError: if no sample has a finite NLL.
    """
    best: tuple[float, int, Adapter] | None = None
    found: list[Candidate] = []
    for index, seed in enumerate(seeds):
        adapter = make(seed)
        own = judge(adapter)
        finite = math.isfinite(own.nll)
        found.append(Candidate(seed, own.nll if finite else None, own.exact_match))
        if finite and (best is None or own.nll < best[0]):
            best = (own.nll, index, adapter)
        on_progress(Progress("gen", "score the samples", index + 1, len(seeds)))
    if best is None:
        raise UsageError("the base writes no numbers with this adapter", hint="lower --scale")
    return best[2], best[1], tuple(found)


def compared(selection: Selection) -> str | None:
    """Return what is to be said of the average of a gate's comparison; None where all adapters were there."""
    if not selection.learned:
        return "the generator learned from no harvested adapters; only the base is compared"
    if selection.averaged == selection.learned:
        return None
    here = (
        f"{selection.averaged or 'none'} of the {selection.learned} adapters that the generator learned from are here"
    )
    return here + ("; the average is of these" if selection.averaged else "; only the base is compared")


def check_gate(selection: Selection, where: str) -> None:
    """Refuse an adapter whose NLL on the examples is not below the base's and the average adapter's.

    Args:
        selection: the scores.
        where: the examples' file.

    Raises:
        GateRefusedError: if it is no better than one of them.
    """
    own = selection.candidates[selection.kept].nll
    assert own is not None  # or it would not have been kept
    others: dict[str, float] = {"base": selection.base.nll}
    if selection.average is not None:
        others["average"] = selection.average.nll
    beaten_by = [name for name, value in others.items() if not own < value]
    if not beaten_by:
        return
    told: Mapping[str, str] = {"base": "the base", "average": f"the average of {selection.averaged} harvested adapters"}
    remark = compared(selection)
    figures = ", ".join(f"{told[name]} {value:.4f}" for name, value in others.items())
    raise GateRefusedError(
        f"the adapter is no better than {' and '.join(told[name] for name in beaten_by)} on {selection.file}: "
        f"NLL {own:.4f} nats a token, {figures}; nothing was written" + (f" ({remark})" if remark else ""),
        {"adapter": own} | others,
        where=where,
        hint="say the task in other words, show --examples, raise --samples, or leave out --gate",
    )
