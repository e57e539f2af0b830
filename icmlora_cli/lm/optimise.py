"""One step of training an adapter, the same in harvesting and in tuning within a time."""

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.lm.trainers import AdapterTrainer
from icmlora_cli.weights.schedules import one_cycle, set_rate


def adamw(trainer: AdapterTrainer) -> torch.optim.AdamW:
    """Return a new optimizer of what the trainer trains."""
    recipe = trainer.recipe
    return torch.optim.AdamW(
        list(trainer.parameters.values()), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, recipe: HarvestRecipe, step: int) -> float:
    """Take one step of the optimizer; none where the gradient is not finite, so that the weights stay good.

    Args:
        loss: a scalar.
        optimizer: The optimizer of the adapter's parameters.
        recipe: the peak rate, its warm-up, and the norm to which gradients are clipped.
        step: steps done before it, which gives the rate.

    Returns:
        The norm of the gradient before it is clipped.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
    if bool(norm.isfinite()):
        set_rate(optimizer, one_cycle(step, recipe.steps, recipe.learning_rate, recipe.warmup))
        optimizer.step()
    return float(norm)
