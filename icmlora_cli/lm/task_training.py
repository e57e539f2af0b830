"""The training of one adapter on one task, step by step, so that several can share the passes through a base."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.lm.batching import training_batches
from icmlora_cli.lm.optimise import Trained, adamw, apply_gradients
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.training_state import load_state, save_state

PLAN = 2  # version of the order in which examples are seen; a state of another order is not gone on with


class TrainedAdapter(Trained, Protocol):
    """An adapter of which some parameters are trained."""

    def reset(self) -> None:
        """Set the adapter to its start, the same for every task: delta-W is zero, or that of what it starts from."""

    def adapter(self) -> Adapter:
        """Return a copy of the adapter as it is now, fp32 on the CPU."""


def kept_steps(recipe: HarvestRecipe) -> tuple[int, ...]:
    """Return after how many steps a checkpoint is kept; the last is ``recipe.steps``."""
    steps = [recipe.steps - index * recipe.keep_every for index in range(recipe.keep)]
    return tuple(sorted(step for step in steps if step > 0))


@dataclass(frozen=True)
class Listeners:
    """What is told of a training, and where it is kept.

    Args:
        state: where the training state is saved.
        identity: what the state must be of (task data, recipe, base); another's state is not used.
        on_step: told the steps done and the step's loss, nats per answer token.
        on_checkpoint: given each checkpoint that is to be kept; None where only the last weights are wanted.
        on_end: given the optimizer after the last step, whose state says what the gradients were.
        meter: measures seconds and joules, which are kept in the state.
    """

    state: Path
    identity: str
    on_step: Callable[[int, float], None]
    on_checkpoint: Callable[[int, Adapter], None] | None = None
    on_end: Callable[[torch.optim.Optimizer], None] | None = None
    meter: CostMeter = field(default_factory=CostMeter)


class TaskTraining:
    """A training that is taken step by step, from its saved state where there is one.

    Args:
        trained: the adapter, which is set to its start, or to the saved state.
        rows: the task's training examples.
        listeners: what is told of the training, and where it is kept.
    """

    def __init__(self, trained: TrainedAdapter, rows: Sequence[Encoded], listeners: Listeners) -> None:
        """Set the adapter to its start or to the saved state, and plan the batches of all steps."""
        self.trained, self.rows, self.listeners, self.recipe = trained, rows, listeners, trained.recipe
        trained.reset()
        self.optimizer = adamw(trained)
        self._identity = f"{listeners.identity} {PLAN}"
        resumed = load_state(listeners.state, trained.parameters, self.optimizer, identity=self._identity)
        if resumed is not None:
            listeners.meter.resume(resumed.cost)
        self.step, self.loss = resumed.step if resumed else 0, math.nan
        recipe = self.recipe
        self._plan = training_batches(
            [row.length for row in rows], batch_size=recipe.batch_size, steps=recipe.steps, seed=recipe.seed
        )

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.recipe.steps

    def batch(self) -> list[Encoded]:
        """Return the rows of the next step."""
        return [self.rows[index] for index in self._plan[self.step]]

    def advance(self, loss: torch.Tensor) -> None:
        """Take a step by the gradients that are there, tell of it, and keep what is to be kept.

        Args:
            loss: The step's loss, a scalar, nats per answer token.

        Raises:
            TrainingDivergedError: If the loss or its gradient is not finite.
        """
        recipe, listeners = self.recipe, self.listeners
        self.loss, norm = apply_gradients(loss, self.optimizer, recipe, self.step)
        if not math.isfinite(self.loss):
            raise _diverged(f"the loss is {self.loss}", self.step)
        if not math.isfinite(norm):
            raise _diverged(f"the gradient's norm is {norm}", self.step)
        self.step += 1
        listeners.on_step(self.step, self.loss)
        if listeners.on_checkpoint is not None and self.step in kept_steps(recipe):
            listeners.on_checkpoint(self.step, self.trained.adapter())
        if self.step % recipe.save_every == 0 and not self.finished:
            save_state(
                listeners.state,
                self.trained.parameters,
                self.optimizer,
                step=self.step,
                identity=self._identity,
                cost=listeners.meter.figures(),
            )

    def end(self) -> float:
        """Tell of the end, and return the last step's loss."""
        if self.listeners.on_end is not None:
            self.listeners.on_end(self.optimizer)
        return self.loss


def _diverged(what: str, step: int) -> TrainingDivergedError:
    return TrainingDivergedError(f"{what} at step {step + 1}", hint="lower learning_rate in the harvest recipe")
