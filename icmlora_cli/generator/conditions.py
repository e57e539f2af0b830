"""The support that a generator reads: hidden states of a task's text, of demonstrations, or of both.

Each state is marked with its slot, which says whether it comes from the text or from demonstrations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

CLAMP = 5.0  # in standard deviations; standardised states are clamped to this
EMPTY, TEXT, SHOWN = 0, 1, 2
"""The slots of a support: padding, the task's text, and demonstrations."""


@dataclass(frozen=True)
class Support:
    """Standardised hidden states of a batch of tasks, from which a reader makes the conditions.

    Args:
        states: the hidden states, fp32 [B, T, hidden]; they are zero in padding.
        slots: the slot of each state, int64 [B, T]: ``EMPTY``, ``TEXT`` or ``SHOWN``.
    """

    states: torch.Tensor
    slots: torch.Tensor

    @classmethod
    def stack(cls, items: Sequence["Support"]) -> "Support":
        """Return the supports as one batch, in which shorter ones are padded at the end."""
        longest = max(item.slots.shape[1] for item in items)
        pads = [longest - item.slots.shape[1] for item in items]
        states = [torch.nn.functional.pad(item.states, (0, 0, 0, pad)) for item, pad in zip(items, pads, strict=True)]
        slots = [torch.nn.functional.pad(item.slots, (0, pad)) for item, pad in zip(items, pads, strict=True)]
        return cls(torch.cat(states), torch.cat(slots))

    def to(self, device: torch.device) -> "Support":
        """Return a copy of the support on the device."""
        return Support(self.states.to(device), self.slots.to(device))

    def disturbed(self, *, noise: float, drop: float, rng: torch.Generator) -> "Support":
        """Return the support with Gaussian noise on its states and some of them left out.

        At least one state of each slot always stays.

        Args:
            noise: the standard deviation of the noise.
            drop: the probability with which each state of a slot is left out.
            rng: the random number generator from which the noise and the states to leave out are drawn.
        """
        states = self.states
        if noise:
            drawn = torch.randn(states.shape, generator=rng).to(states.device)
            states = states + noise * drawn * (self.slots != EMPTY)[..., None]
        if not drop:
            return Support(states, self.slots)
        chances = torch.rand(self.slots.shape, generator=rng).to(states.device)
        slots = self.slots.clone()
        for slot in (TEXT, SHOWN):
            in_slot = self.slots == slot
            highest = chances.masked_fill(~in_slot, -1.0).amax(1, keepdim=True)  # (B, 1): this state always stays
            slots[in_slot & (chances < drop) & (chances < highest)] = EMPTY
        return Support(states * (slots != EMPTY)[..., None], slots)


@dataclass(frozen=True)
class SlotStatistics:
    """The mean and the standard deviation of one slot's states over the training tasks, each fp32 [hidden]."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, states: torch.Tensor) -> "SlotStatistics":
        """Return the statistics of states [n, hidden]; with fewer than two of them, mean 0 and deviation 1."""
        if states.shape[0] < 2:
            return cls(torch.zeros(states.shape[1]), torch.ones(states.shape[1]))
        return cls(states.mean(0), states.std(0).clamp(min=1e-6))

    def apply(self, states: torch.Tensor) -> torch.Tensor:
        """Standardise states [..., hidden] and clamp them to 5 standard deviations."""
        return self._standardised(states).clamp(-CLAMP, CLAMP)

    def clamped(self, states: torch.Tensor) -> float:
        """Return the share of the numbers of states [..., hidden] that ``apply`` clamps, 0 to 1."""
        return float((self._standardised(states).abs() > CLAMP).float().mean())

    def _standardised(self, states: torch.Tensor) -> torch.Tensor:
        return (states.float() - self.mean) / self.std


@dataclass(frozen=True)
class ConditionSpace:
    """Turns readings of a task into a support, by the statistics of the training tasks.

    A reading is what ``lm.task_vector`` takes from the base: one hidden state for each token, or a single pooled one.

    Args:
        text: the statistics of the states of descriptions.
        demonstrations: the statistics of the states of demonstrations.
    """

    text: SlotStatistics
    demonstrations: SlotStatistics

    @property
    def hidden(self) -> int:
        """How many numbers a hidden state has."""
        return int(self.text.mean.shape[0])

    def support(self, text: torch.Tensor | None, demonstrations: torch.Tensor | None) -> Support:
        """Return the support of one task, as a batch of one.

        Args:
            text: the reading of a description, fp32 [hidden] or [T, hidden]; None leaves the slot empty.
            demonstrations: the reading of demonstrations, fp32 [hidden] or [T, hidden]; None leaves the slot empty.
        """
        parts, slots = [torch.zeros(0, self.hidden)], list[int]()
        for slot, statistics, reading in ((TEXT, self.text, text), (SHOWN, self.demonstrations, demonstrations)):
            if reading is not None:
                rows = statistics.apply(reading.reshape(-1, self.hidden))
                parts.append(rows)
                slots += [slot] * len(rows)
        return Support(torch.cat(parts)[None], torch.tensor(slots, dtype=torch.long)[None])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the statistics as named tensors, in the form that ``from_tensors`` reads."""
        return {
            "condition.text.mean": self.text.mean,
            "condition.text.std": self.text.std,
            "condition.demonstrations.mean": self.demonstrations.mean,
            "condition.demonstrations.std": self.demonstrations.std,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> "ConditionSpace":
        """Rebuild the space from its named tensors.

        Raises:
            KeyError: If one of the tensors is missing.
        """
        return cls(
            SlotStatistics(tensors["condition.text.mean"].float(), tensors["condition.text.std"].float()),
            SlotStatistics(
                tensors["condition.demonstrations.mean"].float(), tensors["condition.demonstrations.std"].float()
            ),
        )


def pooled(support: Support) -> torch.Tensor:
    """Return each slot's mean state divided by sqrt(hidden), then a flag for each slot, [B, 2 * hidden + 2].

    A flag is 1.0 if the slot has states and 0.0 otherwise; the mean of an empty slot is zero.
    """
    parts, flags = [], []
    for slot in (TEXT, SHOWN):
        in_slot = (support.slots == slot).float()  # (B, T)
        count = in_slot.sum(1, keepdim=True)
        parts.append((support.states * in_slot[..., None]).sum(1) / count.clamp(min=1.0))
        flags.append((count > 0).float())
    return torch.cat([*(part / math.sqrt(support.states.shape[2]) for part in parts), *flags], dim=1)
