"""Training one adapter on the frozen base; stopped at any step, it goes on where it was."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.lm.batching import training_batches
from icmlora_cli.lm.optimise import adamw, take_step
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.trainers import AdapterTrainer
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.training_state import load_state, save_state

PLAN = 2  # version of the order in which examples are seen; a state of another order is not gone on with


def kept_steps(recipe: HarvestRecipe) -> tuple[int, ...]:
    """Return after how many steps a checkpoint is kept; the last is ``recipe.steps``."""
    steps = [recipe.steps - index * recipe.keep_every for index in range(recipe.keep)]
    return tuple(sorted(step for step in steps if step > 0))


def finetune(
    trainer: AdapterTrainer,
    rows: Sequence[Encoded],
    *,
    state: Path,
    identity: str,
    on_step: Callable[[int, float], None],
    on_checkpoint: Callable[[int, Adapter], None] | None = None,
    on_end: Callable[[torch.optim.Optimizer], None] | None = None,
    meter: CostMeter | None = None,
) -> float:
    """Train the adapter on one task, from its saved state where there is one.

    Args:
        trainer: the base with its adapter.
        rows: the task's training examples; the loss is on their answers only.
        state: where the training state is saved.
        identity: what the state must be of (task data, recipe, base); another's state is not used.
        on_step: told the steps done and the step's loss, nats per answer token.
        on_checkpoint: given each checkpoint that is to be kept; None where only the last weights are wanted.
        on_end: given the optimizer after the last step, whose state says what the gradients were.
        meter: Measures seconds and joules, which are kept in the state; None measures nothing.

    Returns:
        The last step's loss.

    Raises:
        DeviceMemoryError: if memory does not suffice for one example.
        TrainingDivergedError: if the loss or its gradient is not finite.
    """
    recipe, identity = trainer.recipe, f"{identity} {PLAN}"
    trainer.reset()
    optimizer = adamw(trainer)
    resumed = load_state(state, trainer.parameters, optimizer, identity=identity)
    meter = meter or CostMeter()
    if resumed is not None:
        meter.resume(resumed.cost)
    plan = training_batches(
        [row.length for row in rows], batch_size=recipe.batch_size, steps=recipe.steps, seed=recipe.seed
    )
    loss_value = math.nan
    for step in range(resumed.step if resumed else 0, recipe.steps):
        loss_value, norm = take_step(trainer, [rows[index] for index in plan[step]], optimizer, step)
        if not math.isfinite(loss_value):
            raise TrainingDivergedError(
                f"the loss is {loss_value} at step {step + 1}", hint="lower learning_rate in the harvest recipe"
            )
        if not math.isfinite(norm):
            raise TrainingDivergedError(
                f"the gradient's norm is {norm} at step {step + 1}", hint="lower learning_rate in the harvest recipe"
            )
        on_step(step + 1, loss_value)
        if on_checkpoint is not None and step + 1 in kept_steps(recipe):
            on_checkpoint(step + 1, trainer.adapter())
        if (step + 1) % recipe.save_every == 0 and step + 1 < recipe.steps:
            cost = meter.figures()
            save_state(state, trainer.parameters, optimizer, step=step + 1, identity=identity, cost=cost)
    if on_end is not None:
        on_end(optimizer)
    return loss_value
