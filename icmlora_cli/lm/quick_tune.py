"""Fine-tuning a LoRA on a few examples within a wall time: what one could do instead of generating."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icmlora_cli.lm.optimise import adamw
from icmlora_cli.lm.passes import StepPasses, take_step
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.trainers import AdapterTrainer
from icmlora_cli.weights.adapter import Adapter

ENOUGH = 1e-3  # nats per token: what is learned by heart this well gains nothing from more steps


@dataclass(frozen=True)
class QuickTuned:
    """A LoRA tuned within a time.

    Args:
        adapter: what came out.
        steps: optimizer steps taken.
        loss: the last step's, nats per answer token.
        seconds: wall time of the steps.
    """

    adapter: Adapter
    steps: int
    loss: float
    seconds: float


def tune_for(
    trainer: AdapterTrainer,
    rows: Sequence[Encoded],
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> QuickTuned:
    """Train the LoRA from its start, all rows in each step, until the time is up or nothing is left to learn.

    The rate follows the recipe's one-cycle schedule over the time instead of over steps. At least one step is taken.

    Args:
        trainer: the base with its LoRA; the peak rate and the clipping are its recipe's.
        rows: the examples; each step sees all of them.
        seconds: wall time.
        clock: tells the time in seconds.
    """
    trainer.reset()
    optimizer, passes = adamw(trainer), StepPasses(trainer)
    started = clock()
    steps, elapsed, loss_value = 0, 0.0, math.inf
    while steps == 0 or (elapsed < seconds and loss_value > ENOUGH):
        share = min(1.0, elapsed / seconds) if seconds > 0 else 0.0
        loss_value, _ = take_step(passes, rows, optimizer, round(share * trainer.recipe.steps))
        steps, elapsed = steps + 1, clock() - started
    return QuickTuned(trainer.adapter(), steps, loss_value, elapsed)
