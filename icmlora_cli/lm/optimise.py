"""The optimizer of an adapter, and one step by the gradients that are there, wherever an adapter is trained."""

import math
from typing import Protocol

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.weights.schedules import one_cycle, set_rate


class Trained(Protocol):
    """What is trained by a recipe."""

    @property
    def recipe(self) -> HarvestRecipe:
        """How to train."""

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""


def adamw(trained: Trained) -> torch.optim.AdamW:
    """Return a new optimizer of what is trained."""
    recipe = trained.recipe
    return torch.optim.AdamW(
        list(trained.parameters.values()), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )


def apply_gradients(
    total: torch.Tensor, optimizer: torch.optim.Optimizer, recipe: HarvestRecipe, step: int
) -> tuple[float, float]:
    """Clip the gradients that are there and take a step by them; none where they or the loss are not finite.

    Args:
        total: The loss, a scalar; it is read together with the norm, so that the host waits for the device once.
        optimizer: The optimizer of the adapter's parameters.
        recipe: The peak rate, its warm-up, and the norm to which gradients are clipped.
        step: The steps done before it, which gives the rate.

    Returns:
        The loss, and the norm of the gradient before it is clipped.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    clipped = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
    loss, norm = torch.stack([total, clipped.to(total.device)]).tolist()
    if math.isfinite(loss) and math.isfinite(norm):
        set_rate(optimizer, one_cycle(step, recipe.steps, recipe.learning_rate, recipe.warmup))
        optimizer.step()
    return loss, norm
