"""One step of training an adapter, the same in harvesting and in tuning within a time."""

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
    return apply_gradients(optimizer, recipe, step)


def apply_gradients(optimizer: torch.optim.Optimizer, recipe: HarvestRecipe, step: int) -> float:
    """Take one step by the gradients that are there, as ``take_step`` does after its backward pass.

    Args:
        optimizer: the optimizer of the adapter's parameters.
        recipe: the peak rate, its warm-up, and the norm to which gradients are clipped.
        step: steps done before it, which gives the rate.

    Returns:
        The norm of the gradient before it is clipped.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
    if bool(norm.isfinite()):
        set_rate(optimizer, one_cycle(step, recipe.steps, recipe.learning_rate, recipe.warmup))
        optimizer.step()
    return float(norm)
