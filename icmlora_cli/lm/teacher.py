"""What a harvested adapter says of its task's answers: the likeliest tokens at each position, for distillation.

Of each position the ``TOP`` likeliest tokens are kept; all others count as one further outcome, so that both
distributions sum to 1. Their Kullback-Leibler divergence is a lower bound of that over the whole vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from icmlora_cli.disk import files
from icmlora_cli.lm.batching import RowBatch, scoring_batches
from icmlora_cli.lm.devices import upload
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.tensor_cache import cached, keep
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.apply import applied, placed

TOP = 16
AT_ONCE = 16  # examples
SMALLEST = 1e-6  # of a probability whose logarithm is taken; fp32 cannot tell a smaller rest of 1 from none
VERSION = 1  # of what is kept; part of the cache's key


@dataclass(frozen=True)
class TopTokens:
    """The likeliest tokens at each position of an answer.

    Args:
        ids: their ids, int64 [answer, TOP].
        log_probs: their log-probabilities in nats, fp32 [answer, TOP].
    """

    ids: torch.Tensor
    log_probs: torch.Tensor


def top_tokens(
    loaded: LoadedBase,
    adapter: Adapter,
    sha256: str,
    rows: Sequence[Encoded],
    folder: Path,
    *,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[TopTokens]:
    """Return what an adapter says of each example's answer, from the cache where it is there.

    Args:
        loaded: the frozen base.
        adapter: the harvested adapter.
        sha256: the hash of the adapter's weights.
        rows: the examples.
        folder: the folder of cached files.
        on_note: told a remark for the user where a cached file is damaged.

    Raises:
        CorruptFileError: if the adapter does not fit the base.
    """
    asked = [row.content for row in rows]
    key = files.sha256_json([VERSION, TOP, loaded.base.weight_hash, str(loaded.dtype), sha256, asked])
    path = folder / f"{key}.safetensors"
    lengths = [len(row.answer_ids) for row in rows]
    if (found := cached(path, on_note)) is None:
        ids, log_probs = _compute(loaded, adapter, rows)
        found = {"ids": torch.cat(ids), "log_probs": torch.cat(log_probs)}
        keep(path, found)
    pairs = zip(found["ids"].split(lengths), found["log_probs"].split(lengths), strict=True)
    return [TopTokens(ids.long(), log_probs) for ids, log_probs in pairs]


@torch.inference_mode()
def _compute(
    loaded: LoadedBase, adapter: Adapter, rows: Sequence[Encoded]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the tokens, int32 [answer, TOP], and their log-probabilities, fp32 [answer, TOP], of each example."""
    ids, log_probs = [torch.empty(0)] * len(rows), [torch.empty(0)] * len(rows)
    with applied(loaded.model, placed(loaded.model, adapter)):
        for indices in scoring_batches([row.length for row in rows], batch_size=AT_ONCE):
            for part, (batch, likeliest, values) in loaded.micro_batch.parts(
                "scoring", indices, lambda part: _top([rows[index] for index in part], loaded)
            ):
                for row, index in enumerate(part):
                    at = batch.place(len(rows[index].answer_ids))
                    ids[index], log_probs[index] = likeliest[row, at].clone(), values[row, at].clone()
    return ids, log_probs


def _top(rows: Sequence[Encoded], loaded: LoadedBase) -> tuple[RowBatch, torch.Tensor, torch.Tensor]:
    """Return a batch, its likeliest tokens, int32 [B, K, TOP], and their log-probabilities, fp32, on the CPU."""
    batch = loaded.batch(rows)
    every = torch.log_softmax(batch.logits(loaded.model).float(), dim=-1)
    top = every.topk(min(TOP, every.shape[-1]), dim=-1)
    return batch, top.indices.int().cpu(), top.values.cpu()


def divergences(logits: torch.Tensor, teachers: Sequence[TopTokens | None], batch: RowBatch) -> torch.Tensor:
    """Return KL(teacher || model) of each row in nats, summed over its answer, fp32 [B]; 0 for rows without a teacher.

    Args:
        logits: the model's logits of the answers, [B, K, vocabulary].
        teachers: what the adapter of each row's task says of the row's answer; None where nothing is known.
        batch: the batch, which says where the answers are.
    """
    rows = [index for index, teacher in enumerate(teachers) if teacher is not None]
    total = torch.zeros(len(teachers), device=logits.device)
    if not rows:
        return total
    known = [teacher for teacher in teachers if teacher is not None]
    shape = (len(rows), logits.shape[1], known[0].ids.shape[1])
    ids, log_p = torch.zeros(shape, dtype=torch.long), torch.full(shape, -torch.inf)
    for row, teacher in enumerate(known):
        at = batch.place(len(teacher.ids))
        ids[row, at], log_p[row, at] = teacher.ids, teacher.log_probs
    ids, log_p = upload(ids, logits.device), upload(log_p, logits.device)
    told = log_p[..., :1] > -torch.inf  # positions of the answer
    log_q = (chosen := logits[rows].float()).gather(2, ids) - chosen.logsumexp(-1, keepdim=True)
    p, q = log_p.exp(), log_q.exp()
    top = p * (log_p.clamp(min=-1e9) - log_q)
    rest_p = (1.0 - p.sum(-1, keepdim=True)).clamp(min=0.0)
    rest_q = (1.0 - q.sum(-1, keepdim=True)).clamp(min=SMALLEST)
    rest = rest_p * (rest_p.clamp(min=SMALLEST).log() - rest_q.log())
    each = (top.sum(-1, keepdim=True) + rest).masked_fill(~told, 0.0)
    return total.index_add(0, torch.tensor(rows, device=logits.device), each.sum((1, 2)))
