"""The condition c: two slots, one from the task's text and one from demonstrations, zeros where one is absent."""

import math
from dataclasses import dataclass

import torch

CLAMP = 5.0  # standard deviations


@dataclass(frozen=True)
class SlotStatistics:
    """Mean and standard deviation of one slot over the training tasks, fp32 [hidden] each."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, vectors: torch.Tensor) -> "SlotStatistics":
        """Return the statistics of vectors [n, hidden]."""
        if vectors.shape[0] < 2:
            return cls(torch.zeros(vectors.shape[1]), torch.ones(vectors.shape[1]))
        return cls(vectors.mean(0), vectors.std(0).clamp(min=1e-6))

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """Standardise vectors [..., hidden], clamp them to 5 standard deviations and divide by sqrt(hidden)."""
        scaled = ((vectors - self.mean) / self.std).clamp(-CLAMP, CLAMP)
        return scaled / math.sqrt(self.mean.shape[0])


@dataclass(frozen=True)
class ConditionSpace:
    """How a pair of task vectors becomes a condition.

    Args:
        text: statistics of the vectors from descriptions.
        demonstrations: statistics of the vectors from demonstrations.
    """

    text: SlotStatistics
    demonstrations: SlotStatistics

    @property
    def condition_dim(self) -> int:
        """Numbers in a condition: both slots and a flag for each."""
        return 2 * int(self.text.mean.shape[0]) + 2

    def condition(self, text: torch.Tensor | None, demonstrations: torch.Tensor | None) -> torch.Tensor:
        """Return c for one task.

        Args:
            text: fp32 [hidden]; None leaves the slot empty.
            demonstrations: fp32 [hidden]; None leaves the slot empty.

        Returns:
            fp32 [condition_dim].
        """
        empty = torch.zeros_like(self.text.mean)
        first = empty if text is None else self.text.apply(text)
        second = empty if demonstrations is None else self.demonstrations.apply(demonstrations)
        flags = torch.tensor([float(text is not None), float(demonstrations is not None)])
        return torch.cat([first, second, flags])

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
            SlotStatistics(tensors["condition.text.mean"], tensors["condition.text.std"]),
            SlotStatistics(tensors["condition.demonstrations.mean"], tensors["condition.demonstrations.std"]),
        )
