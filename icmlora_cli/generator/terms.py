"""What a step of training minimises: the architecture's loss on harvested adapters, and what else a caller brings."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch

from icmlora_cli.config.train import ObjectiveRecipe
from icmlora_cli.generator.conditions import ConditionSpace, Support
from icmlora_cli.generator.interface import Batch, Network, Objective, TrainStep


@dataclass(frozen=True)
class TaskData:
    """What the generator learns of one task.

    Args:
        tokens: its adapters' normalised cores, fp32 [checkpoints, modules, R, R].
        texts: readings of its descriptions, each [hidden] or [T, hidden].
        demonstrations: readings of draws of demonstrations, each [hidden] or [T, hidden].
    """

    tokens: torch.Tensor
    texts: Sequence[torch.Tensor]
    demonstrations: Sequence[torch.Tensor]


@dataclass(frozen=True)
class TrainingData:
    """What the generator learns from.

    Args:
        tasks: the data of each harvested task; every task is equally likely.
        space: makes supports of readings.
        mask: bool [modules, R, R], True where a core has numbers.
        condition_noise: standard deviation of the noise on standardised states.
        token_dropout: probability that a state of a support is left out.
    """

    tasks: Sequence[TaskData]
    space: ConditionSpace
    mask: torch.Tensor
    condition_noise: float = 0.0
    token_dropout: float = 0.0

    def tokens(self) -> torch.Tensor:
        """Return the cores of all tasks, one task after the other, fp32 [adapters, modules, R, R]."""
        every = [task.tokens for task in self.tasks]
        return torch.cat(every) if every else torch.zeros(0, *self.mask.shape)


class Term(Protocol):
    """Something to minimise beside what the architecture makes of harvested adapters."""

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, float]:
        """Add a step's gradients to the model's, and return the losses behind them by name.

        Args:
            model: the networks.
            train_step: where in the training this is.
            rng: what randomness is drawn from.
        """


@dataclass(frozen=True)
class ElboTerm:
    """The architecture's own loss on harvested adapters, each task equally likely.

    Args:
        data: the tasks that have adapters, and how their supports are disturbed.
        objective: what losses are measured with.
        tokens: their cores, one after the other, fp32 [adapters, modules, R, R].
        owners: the task that each of these is of, int64 [adapters].
        batch_size: (adapter, condition) pairs a step.
        weights: of the loss, in each stage; the last one holds from there on.
    """

    data: TrainingData
    objective: Objective
    tokens: torch.Tensor
    owners: torch.Tensor
    batch_size: int
    weights: tuple[float, ...]

    @classmethod
    def of(
        cls, data: TrainingData, tokens: torch.Tensor, objective: ObjectiveRecipe, batch_size: int, *weights: float
    ) -> "ElboTerm":
        """Return the term of all adapters of the data, on the device where their cores are.

        Args:
            data: the tasks.
            tokens: their cores, on the device to train on.
            objective: weights of the parts.
            batch_size: pairs a step.
            weights: of the loss, in each stage.
        """
        power = tokens[:, data.mask].square().mean().clamp(min=1e-12)
        owners = torch.tensor([own for own, task in enumerate(data.tasks) for _ in task.tokens], device=tokens.device)
        measured = Objective(objective, data.mask.to(tokens.device), power)
        return cls(data, measured, tokens, owners, batch_size, weights)

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, float]:
        """Add the gradients of one batch."""
        weight = self.weights[min(train_step.stage, len(self.weights) - 1)]
        if not weight:
            return {}
        batch = self._draw(rng)
        losses = model.losses(batch, self.objective, train_step, rng)
        (weight * losses.total).backward()
        return {name: float(item.detach()) for name, item in losses.parts.items()}

    def _draw(self, rng: torch.Generator) -> Batch:
        """Return a batch in which every task is equally likely, then every one of its adapters."""
        data, device = self.data, self.tokens.device
        firsts = list(accumulate((len(task.tokens) for task in data.tasks), initial=0))
        rows, supports = [], []
        for _ in range(self.batch_size):
            own = pick(len(data.tasks), rng)
            task = data.tasks[own]
            rows.append(firsts[own] + pick(len(task.tokens), rng))
            supports.append(draw_support(task.texts, task.demonstrations, data.space, rng))
        support = Support.stack(supports).disturbed(noise=data.condition_noise, drop=data.token_dropout, rng=rng)
        return Batch(self.tokens, self.owners, torch.tensor(rows, device=device), support.to(device))


def draw_support(
    texts: Sequence[torch.Tensor],
    demonstrations: Sequence[torch.Tensor],
    space: ConditionSpace,
    rng: torch.Generator,
) -> Support:
    """Return a support of a task with its slots drawn: half of the time text alone, which is what users give most.

    Of the other half, a part has demonstrations alone and a part both; a task that lacks one has the other.
    """
    slots = pick(4, rng)
    text, shown = None, None
    if len(texts) and (slots != 1 or not len(demonstrations)):
        text = texts[pick(len(texts), rng)]
    if len(demonstrations) and (slots in (1, 2) or text is None):
        shown = demonstrations[pick(len(demonstrations), rng)]
    return space.support(text, shown)


def pick(count: int, rng: torch.Generator) -> int:
    """Return a number below count."""
    return int(torch.randint(count, (1,), generator=rng))
