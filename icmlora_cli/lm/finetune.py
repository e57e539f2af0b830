"""Training one adapter on the frozen base; stopped at any step, it goes on where it was."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from icmlora_cli.lm.checkpointing import checkpointed
from icmlora_cli.lm.passes import StepPasses
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.task_training import Listeners, TaskTraining
from icmlora_cli.lm.trainers import AdapterTrainer
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.weights.adapter import Adapter


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
        TrainingDivergedError: if the loss or its gradient is not finite.
        UsageError: if the recipe packs rows, which would see each other in this base.
    """
    listeners = Listeners(state, identity, on_step, on_checkpoint, on_end, meter or CostMeter())
    training = TaskTraining(trainer, rows, listeners)
    train_through(trainer, training)
    return training.end()


def train_through(trainer: AdapterTrainer, training: TaskTraining) -> None:
    """Take all steps of a training that are left.

    Args:
        trainer: the base with the adapter that is trained.
        training: the training.

    Raises:
        TrainingDivergedError: if the loss or its gradient is not finite.
        UsageError: if the recipe packs rows, which would see each other in this base.
    """
    with checkpointed(trainer.loaded.model, on=trainer.recipe.gradient_checkpointing):
        passes = StepPasses(trainer)
        while not training.finished:
            training.advance(passes.add_gradients(training.batch()))
