"""The terms that a step of training minimises.

One is here: the architecture's loss on harvested adapters. Callers may add others, such as that of episodes.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch

from icmlora_cli.config.train import ObjectiveRecipe
from icmlora_cli.generator.conditions import ConditionSpace, Support
from icmlora_cli.generator.interface import Batch, Network, Objective, TrainStep
from icmlora_cli.generator.noise import AtOnce, RowsRng, all_at_once, parts_of
from icmlora_cli.weights.seeds import named_source


@dataclass(frozen=True)
class TaskData:
    """The adapters and the readings of one task, from which the generator learns.

    Args:
        tokens: the normalised cores of the task's adapters, fp32 [checkpoints, modules, R, R].
        texts: the readings of the task's descriptions, each fp32 [hidden] or [T, hidden].
        demonstrations: the readings of draws of the task's demonstrations, each fp32 [hidden] or [T, hidden].
        weights: how much the squared error of each number counts, fp32 [modules, R, R] with a mean of 1; None if all
            count the same. Either all tasks of a training have weights, or none has.
    """

    tokens: torch.Tensor
    texts: Sequence[torch.Tensor]
    demonstrations: Sequence[torch.Tensor]
    weights: torch.Tensor | None = None


@dataclass(frozen=True)
class TrainingData:
    """The harvested tasks from which a generator learns, and how their supports are disturbed.

    Args:
        tasks: the data of each harvested task.
        space: the statistics by which readings become supports.
        mask: True where a core has numbers, bool [modules, R, R].
        condition_noise: the standard deviation of the noise on standardised states.
        token_dropout: the probability that a state of a support is left out.
    """

    tasks: Sequence[TaskData]
    space: ConditionSpace
    mask: torch.Tensor
    condition_noise: float = 0.0
    token_dropout: float = 0.0

    def tokens(self) -> torch.Tensor:
        """Return the normalised cores of all tasks, one task after the other, fp32 [adapters, modules, R, R]."""
        per_task = [task.tokens for task in self.tasks]
        return torch.cat(per_task) if per_task else torch.zeros(0, *self.mask.shape)

    def error_weights(self) -> torch.Tensor | None:
        """Return the weights of squared errors of all tasks, fp32 [tasks, modules, R, R]; None if tasks have none."""
        known = [task.weights for task in self.tasks if task.weights is not None]
        return torch.stack(known) if known else None


class Term(Protocol):
    """Something that a step of training minimises; a step adds up the gradients of all terms."""

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Add the term's gradients to those of the model's parameters, and return the losses by name.

        The losses are scalars without a graph, on the device of the model, so that a step reads them all at once.

        Args:
            model: the networks that are trained.
            train_step: where in the training the step falls.
            rng: the random number generator from which everything random is drawn.
        """


@dataclass(frozen=True)
class ElboTerm:
    """The architecture's loss on harvested adapters.

    Args:
        data: the tasks that have adapters, and how their supports are disturbed.
        objective: the weights and scales of the losses.
        tokens: the normalised cores of all adapters, fp32 [adapters, modules, R, R].
        owners: the index of the task that each adapter belongs to, int64 [adapters].
        batch_size: how many (adapter, condition) pairs a step takes.
        weights: the weight of the loss in each stage; the last one also holds for all later stages.
        errors: the weights of squared errors, fp32 [tasks, modules, R, R]; None if all errors count the same.
        order: the seed of the order in which each epoch takes all adapters; None has each row of a step draw a task,
            then one of its adapters, all equally likely.
        at_once: runs a step on as many rows at once as memory suffices for.
    """

    data: TrainingData
    objective: Objective
    tokens: torch.Tensor
    owners: torch.Tensor
    batch_size: int
    weights: tuple[float, ...]
    errors: torch.Tensor | None = None
    order: int | None = None
    at_once: AtOnce = all_at_once

    @classmethod
    def of(
        cls, data: TrainingData, tokens: torch.Tensor, objective: ObjectiveRecipe, batch_size: int, *weights: float
    ) -> "ElboTerm":
        """Return the term for all adapters of the data, on the device where their cores are.

        Args:
            data: the tasks that have adapters, and how their supports are disturbed.
            tokens: the normalised cores of all adapters, fp32 [adapters, modules, R, R], on the device to train on.
            objective: the weights of the parts of the loss.
            batch_size: how many (adapter, condition) pairs a step takes.
            weights: the weight of the loss in each stage; the last one also holds for all later stages.
        """
        indices = [index for index, task in enumerate(data.tasks) for _ in task.tokens]
        owners = torch.tensor(indices, device=tokens.device)
        mask, errors = data.mask.to(tokens.device), data.error_weights()
        squares = tokens[:, mask].square()
        if errors is not None:
            errors = errors.to(tokens.device)
            squares = squares * errors[owners][:, mask]
        scaled = Objective(objective, mask, squares.mean().clamp(min=1e-12))
        return cls(data, scaled, tokens, owners, batch_size, weights, errors)

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Draw a batch, add its gradients to the parameters', and return its losses by name."""
        weight = self.weights[min(train_step.stage, len(self.weights) - 1)]
        if not weight:
            return {}
        batch, state = self._draw(train_step, rng), rng.get_state()
        count = len(batch.rows)
        earlier = [(parameter, parameter.grad) for parameter in model.parameters()]

        def run(size: int) -> dict[str, torch.Tensor]:
            for parameter, _ in earlier:
                parameter.grad = None
            sums: dict[str, torch.Tensor] = {}
            for rows in parts_of(count, count if model.couples_rows else size):
                rng.set_state(state)
                whole = rows.stop - rows.start == count
                losses = model.losses(
                    batch if whole else batch.part(rows),
                    self.objective,
                    train_step,
                    rng if whole else RowsRng(rng, rows, count),
                )
                share = (rows.stop - rows.start) / count
                (share * weight * losses.total).backward()
                for name, item in losses.parts.items():
                    sums[name] = sums.get(name, 0.0) + share * item.detach()
            return sums

        losses = self.at_once(1 if model.couples_rows else count, run)
        for parameter, grad in earlier:
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else grad + parameter.grad
        return losses

    def _rows(self, train_step: TrainStep, rng: torch.Generator) -> Iterator[tuple[int, TaskData]]:
        """Yield the index of each adapter of a step, and its task."""
        tasks = self.data.tasks
        firsts = list(accumulate((len(task.tokens) for task in tasks), initial=0))
        if self.order is None:
            for _ in range(self.batch_size):
                index = pick(len(tasks), rng)
                yield firsts[index] + pick(len(tasks[index].tokens), rng), tasks[index]
            return
        epoch, batch = divmod(train_step.step, -(-firsts[-1] // self.batch_size))
        order = torch.randperm(firsts[-1], generator=named_source("epoch", self.order, train_step.stage, epoch))
        for row in order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist():
            yield row, tasks[bisect_right(firsts, row) - 1]

    def _draw(self, train_step: TrainStep, rng: torch.Generator) -> Batch:
        """Return the batch of a step, with a support of its task for each adapter."""
        data, device = self.data, self.tokens.device
        rows, supports = [], []
        for row, task in self._rows(train_step, rng):
            rows.append(row)
            supports.append(draw_support(task.texts, task.demonstrations, data.space, rng))
        support = Support.stack(supports).disturbed(noise=data.condition_noise, drop=data.token_dropout, rng=rng)
        return Batch(self.tokens, self.owners, torch.tensor(rows, device=device), support.to(device), self.errors)


def draw_support(
    texts: Sequence[torch.Tensor],
    demonstrations: Sequence[torch.Tensor],
    space: ConditionSpace,
    rng: torch.Generator,
) -> Support:
    """Return a support of a task, with a random choice of what it holds.

    Half of the time it is the text alone, which is what users mostly give; a quarter of the time it is demonstrations
    alone, and a quarter both. A task that lacks one of them is read by the other.

    Args:
        texts: the readings of the task's descriptions, each fp32 [hidden] or [T, hidden].
        demonstrations: the readings of draws of its demonstrations, each fp32 [hidden] or [T, hidden].
        space: the statistics by which readings become supports.
        rng: the random number generator from which the choice is drawn.
    """
    choice = pick(4, rng)  # 1: demonstrations alone, 2: both, else the text alone
    text, reading = None, None
    if len(texts) and (choice != 1 or not len(demonstrations)):
        text = texts[pick(len(texts), rng)]
    if len(demonstrations) and (choice in (1, 2) or text is None):
        reading = demonstrations[pick(len(demonstrations), rng)]
    return space.support(text, reading)


def pick(count: int, rng: torch.Generator) -> int:
    """Return a random whole number from 0 to count - 1."""
    return int(torch.randint(count, (1,), generator=rng))
