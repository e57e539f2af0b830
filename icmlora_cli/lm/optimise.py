"""One step of training an adapter, the same in harvesting and in tuning within a time."""

import math
from collections.abc import Sequence

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.lm.batching import answer_log_probs, collate
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.trainers import AdapterTrainer
from icmlora_cli.weights.schedules import one_cycle, set_rate


def adamw(trainer: AdapterTrainer) -> torch.optim.AdamW:
    """Return a new optimizer of what the trainer trains."""
    recipe = trainer.recipe
    return torch.optim.AdamW(
        list(trainer.parameters.values()), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )


def take_step(
    trainer: AdapterTrainer, rows: Sequence[Encoded], optimizer: torch.optim.Optimizer, step: int
) -> tuple[float, float]:
    """Take one step of the optimizer; none where loss or gradient are not finite, so that the weights stay good.

    The rows go through the base in one pass, or in several where memory does not suffice; the gradient is the same but
    for rounding. The host waits for the device once.

    Args:
        trainer: The base with its adapter, and the recipe with the peak rate, its warm-up, and the norm to which
            gradients are clipped.
        rows: The examples of the step.
        optimizer: The optimizer of the adapter's parameters.
        step: steps done before it, which gives the rate.

    Returns:
        The mean loss of the rows' answer tokens before the step, in nats, and the norm of its gradient before it is
        clipped.

    Raises:
        DeviceMemoryError: If memory does not suffice for one row.
    """
    total = trainer.loaded.micro_batch.whole(
        "training", len(rows), lambda size: _gradient(trainer, rows, optimizer, size)
    )
    return apply_gradient(total, optimizer, trainer.recipe, step)


def apply_gradient(
    total: torch.Tensor, optimizer: torch.optim.Optimizer, recipe: HarvestRecipe, step: int
) -> tuple[float, float]:
    """Clip the gradient that the parameters have and take a step by it; none where it or the loss is not finite.

    Args:
        total: The loss, a scalar.
        optimizer: The optimizer of the parameters.
        recipe: The peak rate, its warm-up, and the norm to which gradients are clipped.
        step: steps done before it, which gives the rate.

    Returns:
        The loss, and the norm of the gradient before it is clipped.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    clipped = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
    loss, norm = torch.stack([total, clipped]).tolist()
    if math.isfinite(loss) and math.isfinite(norm):
        set_rate(optimizer, one_cycle(step, recipe.steps, recipe.learning_rate, recipe.warmup))
        optimizer.step()
    return loss, norm


def _gradient(
    trainer: AdapterTrainer, rows: Sequence[Encoded], optimizer: torch.optim.Optimizer, size: int
) -> torch.Tensor:
    """Put the gradient of the rows' mean loss into the parameters, ``size`` rows a pass; return the loss, a scalar."""
    loaded, tokens = trainer.loaded, sum(len(row.answer_ids) for row in rows)
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=loaded.device)
    for start in range(0, len(rows), size):
        batch = collate(rows[start : start + size], loaded.tokenizer.pad_token_id, loaded.device)
        log_probs, _ = answer_log_probs(trainer.model, batch)
        loss = -log_probs.sum() / tokens
        loss.backward()
        total = total + loss.detach()
    return total
