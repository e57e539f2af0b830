"""When a loss is flat, so that its stage of a training may end: the rate falls twice before that."""

import math
from dataclasses import dataclass

import torch

GAIN = 0.01  # the share by which the mean loss must fall from one window to the next
DROPS = 2  # how often the rate becomes a tenth before a loss that does not fall ends its stage


@dataclass
class Plateau:
    """Watches one stage's loss, window by window, and says how low the rate is by now.

    Args:
        window: the number of steps over which the loss is averaged, before it is compared.
        total: the sum of the losses in the present window.
        count: how many steps of the present window are done.
        before: the mean loss of the window before.
        drops: how often the loss has not fallen from one window to the next.
    """

    window: int
    total: float = 0.0
    count: int = 0
    before: float = math.inf
    drops: int = 0

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by: 1, then a tenth, then a hundredth."""
        return 10.0 ** -min(self.drops, DROPS)

    def add(self, loss: float) -> bool:
        """Count the loss of a step, and return whether the stage ends: the loss is flat at the lowest rate too."""
        self.total += loss
        self.count += 1
        if self.count < self.window:
            return False
        mean = self.total / self.count
        self.drops += mean > (1.0 - GAIN) * self.before
        self.total, self.count, self.before = 0.0, 0, mean
        return self.drops > DROPS

    def numbers(self) -> torch.Tensor:
        """Return all but the window as numbers for the training state, float64 [4]."""
        return torch.tensor([self.total, self.count, self.before, self.drops], dtype=torch.float64)

    @classmethod
    def of(cls, window: int, numbers: torch.Tensor) -> "Plateau":
        """Return the plateau whose numbers a training state holds."""
        total, count, before, drops = numbers.tolist()
        return cls(window, total, int(count), before, int(drops))
