"""Batches of examples of like length.

A decoder alone reads them padded on the left, so that all answers end together; where an encoder reads the prompts,
these are padded on the right, and all answers begin together.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from icmlora_cli.lm.devices import upload
from icmlora_cli.lm.prompts import Encoded

IGNORED = -100


class RowBatch(Protocol):
    """Examples as a base reads them in one pass."""

    @property
    def labels(self) -> torch.Tensor:
        """The tokens of the answers, int64 [B, K], ``IGNORED`` where a row has none."""

    def place(self, tokens: int) -> slice:
        """Return where in its row of ``labels`` an answer of so many tokens is."""

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """Run the model and return its logits of each answer token, [B, K, vocabulary], and of no other position."""


@dataclass(frozen=True)
class TokenBatch:
    """Padded token ids of a decoder alone.

    Args:
        input_ids: int64 [B, T], padded on the left.
        attention_mask: int64 [B, T], 1 where there is a token.
        position_ids: int64 [B, T], counted from each row's first token.
        labels: int64 [B, K], the answers at the row's end, ``IGNORED`` before them.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor

    def place(self, tokens: int) -> slice:
        """Return where in its row of ``labels`` an answer of so many tokens is: at the end."""
        return slice(self.labels.shape[1] - tokens, self.labels.shape[1])

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """Run the model and return its logits of each answer token, [B, K, vocabulary], and of no other position."""
        length, count = self.input_ids.shape[1], self.labels.shape[1]
        predicting = torch.arange(length - 1 - count, length - 1, device=self.input_ids.device)  # each before its token
        logits: torch.Tensor = model(
            input_ids=self.input_ids,
            attention_mask=self.attention_mask,
            position_ids=self.position_ids,
            use_cache=False,
            logits_to_keep=predicting,
        ).logits
        return logits


@dataclass(frozen=True)
class PairBatch:
    """Prompts for an encoder and answers for a decoder.

    Args:
        inputs: the model's arguments: ``input_ids`` and ``attention_mask``, int64 [B, T], padded on the right;
            ``decoder_input_ids``, int64 [B, S + K - 1]: the S tokens that each answer starts after, and all of the
            answer but its last token; and what the base reads of images.
        labels: int64 [B, K], the answers at the row's start, ``IGNORED`` after them.
    """

    inputs: Mapping[str, torch.Tensor]
    labels: torch.Tensor

    def place(self, tokens: int) -> slice:
        """Return where in its row of ``labels`` an answer of so many tokens is: at the start."""
        return slice(0, tokens)

    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """Run the model and return its logits of each answer token, [B, K, vocabulary], and of no other position."""
        logits: torch.Tensor = model(**self.inputs, use_cache=False).logits  # (B, S + K - 1, vocabulary)
        return logits[:, logits.shape[1] - self.labels.shape[1] :]


def collate(
    rows: Sequence[Encoded], pad_id: int, device: torch.device, *, size: Callable[[int], int] = int
) -> TokenBatch:
    """Pad a few examples into one batch for a decoder alone.

    Args:
        rows: the examples.
        pad_id: the token that stands where a row has none.
        device: where the tensors are put.
        size: gives the size of the batch for the longest row and the longest answer, where it is to be larger.
    """
    longest, answer = size(max(row.length for row in rows)), size(max(len(row.answer_ids) for row in rows))
    longest = max(longest, answer + 1)  # the token before each answer's first predicts it
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), answer), IGNORED, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, longest - row.length :] = torch.tensor(row.prompt_ids + row.answer_ids)
        mask[index, longest - row.length :] = 1
        labels[index, answer - len(row.answer_ids) :] = torch.tensor(row.answer_ids)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return TokenBatch(*(upload(item, device) for item in (ids, mask, positions, labels)))


def answer_log_probs(model: torch.nn.Module, batch: RowBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the model and read its prediction of each answer token; logits are computed at those positions only.

    Returns:
        Log-probabilities of the answer tokens, fp32 [B, K] (0 where ignored), and whether each is the model's first
        choice, bool [B, K] (True where ignored).
    """
    return of_logits(batch.logits(model), batch)


def of_logits(logits: torch.Tensor, batch: RowBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what ``answer_log_probs`` does, from the logits of a forward pass that is done.

    Args:
        logits: what ``batch.logits`` gave, [B, K, vocabulary].
        batch: the batch.
    """
    scored = batch.labels != IGNORED
    target = batch.labels.clamp(min=0)
    log_probs = torch.log_softmax(logits.float(), dim=-1).gather(2, target[..., None])[..., 0]
    right = logits.argmax(-1) == target
    return log_probs.masked_fill(~scored, 0.0), right | ~scored


def training_batches(lengths: Sequence[int], *, batch_size: int, steps: int, seed: int) -> list[list[int]]:
    """Plan every step's batch ahead, so that a resumed run sees the data in the same order.

    Each epoch is a shuffle of all examples. The examples left over when whole batches are cut from it, a random few of
    any length, open a batch that the next epoch's shuffle fills: every batch is whole, so that no example of a small
    last batch weighs more than others in the mean loss, and none comes twice in a batch. The rest of an epoch is cut
    into pools of 8 batches, each pool sorted by length and cut into batches, and the epoch's batches are shuffled.

    After ``ceil(k * len(lengths) / batch_size)`` batches every example has been seen k times or more, and at no moment
    any of them more than once more often than another.

    Args:
        lengths: tokens of each example.
        batch_size: examples a step; fewer where there are fewer.
        steps: how many batches to plan.
        seed: The seed of the shuffles.
    """
    shuffler = random.Random(seed)
    size = min(batch_size, len(lengths))
    plan: list[list[int]] = []
    left: list[int] = []
    while len(plan) < steps:
        order = list(range(len(lengths)))
        shuffler.shuffle(order)
        if left:
            filling = [index for index in order if index not in left][: size - len(left)]
            plan.append(sorted(left + filling, key=lambda index: lengths[index]))
            order = [index for index in order if index not in filling]
        whole = len(order) - len(order) % size
        order, left = order[:whole], order[whole:]
        epoch: list[list[int]] = []
        for start in range(0, whole, 8 * size):
            pool = sorted(order[start : start + 8 * size], key=lambda index: lengths[index])
            epoch += [pool[at : at + size] for at in range(0, len(pool), size)]
        shuffler.shuffle(epoch)
        plan += epoch
    return plan[:steps]


def scoring_batches(lengths: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """Cut the examples, sorted by length, into batches; each index comes once."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
