"""The support that a generator reads: hidden states of a task's text, of demonstrations, or of both, in their slots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

CLAMP = 5.0  # standard deviations
EMPTY, TEXT, SHOWN = 0, 1, 2
"""Slots: padding, the task's text, demonstrations."""


@dataclass(frozen=True)
class Support:
    """Standardised hidden states of a batch of tasks.

    Args:
        states: fp32 [B, T, hidden], zero where there is nothing.
        slots: int64 [B, T]: ``EMPTY``, ``TEXT`` or ``SHOWN``.
    """

    states: torch.Tensor
    slots: torch.Tensor

    @classmethod
    def stack(cls, items: Sequence["Support"]) -> "Support":
        """Return one batch of several, padded at the end."""
        longest = max(item.slots.shape[1] for item in items)
        pads = [longest - item.slots.shape[1] for item in items]
        states = [torch.nn.functional.pad(item.states, (0, 0, 0, pad)) for item, pad in zip(items, pads, strict=True)]
        slots = [torch.nn.functional.pad(item.slots, (0, pad)) for item, pad in zip(items, pads, strict=True)]
        return cls(torch.cat(states), torch.cat(slots))

    def to(self, device: torch.device) -> "Support":
        """Return the support on a device."""
        return Support(self.states.to(device), self.slots.to(device))

    def disturbed(self, *, noise: float, drop: float, rng: torch.Generator) -> "Support":
        """Return the support with Gaussian noise on its states and some of them left out, never all of a slot's.

        Args:
            noise: standard deviation.
            drop: probability that a state of a slot with several is left out.
            rng: what noise and choice are drawn from.
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
            own = self.slots == slot
            luckiest = chances.masked_fill(~own, -1.0).amax(1, keepdim=True)
            slots[own & (chances < drop) & (chances < luckiest)] = EMPTY
        return Support(states * (slots != EMPTY)[..., None], slots)


@dataclass(frozen=True)
class SlotStatistics:
    """Mean and standard deviation of one slot's states over the training tasks, fp32 [hidden] each."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, states: torch.Tensor) -> "SlotStatistics":
        """Return the statistics of states [n, hidden]."""
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
    """How readings of a task become a support.

    A reading holds one hidden state a token, or a single pooled one.

    Args:
        text: statistics of the states of descriptions.
        demonstrations: statistics of the states of demonstrations.
    """

    text: SlotStatistics
    demonstrations: SlotStatistics

    @property
    def hidden(self) -> int:
        """Numbers in a state."""
        return int(self.text.mean.shape[0])

    def support(self, text: torch.Tensor | None, demonstrations: torch.Tensor | None) -> Support:
        """Return the support of one task, a batch of one.

        Args:
            text: fp32 [hidden] or [T, hidden]; None leaves the slot empty.
            demonstrations: the same.
        """
        parts, slots = [torch.zeros(0, self.hidden)], list[int]()
        for slot, statistics, given in ((TEXT, self.text, text), (SHOWN, self.demonstrations, demonstrations)):
            if given is not None:
                rows = statistics.apply(given.reshape(-1, self.hidden))
                parts.append(rows)
                slots += [slot] * len(rows)
        return Support(torch.cat(parts)[None], torch.tensor(slots, dtype=torch.long)[None])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the statistics as named tensors."""
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
            KeyError: if one is missing.
        """
        return cls(
            SlotStatistics(tensors["condition.text.mean"].float(), tensors["condition.text.std"].float()),
            SlotStatistics(
                tensors["condition.demonstrations.mean"].float(), tensors["condition.demonstrations.std"].float()
            ),
        )


def pooled(support: Support) -> torch.Tensor:
    """Return the mean of each slot's states over sqrt(hidden), and a flag for each slot, [B, 2 * hidden + 2]."""
    parts, flags = [], []
    for slot in (TEXT, SHOWN):
        own = (support.slots == slot).float()  # (B, T)
        count = own.sum(1, keepdim=True)
        parts.append((support.states * own[..., None]).sum(1) / count.clamp(min=1.0))
        flags.append((count > 0).float())
    return torch.cat([*(part / math.sqrt(support.states.shape[2]) for part in parts), *flags], dim=1)
