"""Learning rates by the step: pure functions, so that a training goes on exactly wherever it was stopped."""

import math

import torch


def warm_cosine(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step: a linear rise over the first twentieth of the steps, then a cosine to zero.

    Args:
        step: steps done before it.
        steps: in all.
        peak: the highest rate.
    """
    rising = max(1, steps // 20)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * _falling((step - rising) / max(1, steps - rising))


def warm_constant(step: int, rising: int, peak: float) -> float:
    """Return the rate of a step: a linear rise over the first steps, then the peak for as long as it takes.

    Args:
        step: steps done before it.
        rising: the number of steps in which it rises.
        peak: the highest rate.
    """
    return peak * min(1.0, (step + 1) / max(1, rising))


def one_cycle(step: int, steps: int, peak: float, warmup: float) -> float:
    """Return the rate of a step: a cosine from 1/25 of the peak up to it, then a cosine down to zero.

    Args:
        step: steps done before it.
        steps: in all.
        peak: the highest rate.
        warmup: share of the steps in which the rate rises.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        share, low = (step + 1) / rising, peak / 25
        return low + (peak - low) * 0.5 * (1 - math.cos(math.pi * share))
    return peak * _falling(min(1.0, (step + 1 - rising) / max(1, steps - rising)))


def _falling(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the optimizer's next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
