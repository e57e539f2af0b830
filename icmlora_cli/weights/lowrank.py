"""The best low-rank fit of a matrix, and the singular values of delta-W from its factors alone."""

import torch

from icmlora_cli.weights.adapter import Adapter, Factors

DENSE = 1024  # the smaller side up to which the whole SVD is taken
OVERSAMPLE, ITERATIONS = 16, 6  # of the randomised one (Halko et al., 2011): within a percent of the best


def fitted(delta: torch.Tensor, rank: int) -> tuple[Factors, float]:
    """Return factors whose product is nearest to a matrix, and ||fit - matrix|| / ||matrix||.

    Args:
        delta: fp32 [out, in].
        rank: at most this; never more than the smaller side.

    Returns:
        ``lora_A`` [r, in] and ``lora_B`` [out, r] of equal norm, fp32, and the relative error (0 for a zero matrix).
    """
    kept = min(rank, *delta.shape)
    if min(delta.shape) <= DENSE or kept + OVERSAMPLE >= min(delta.shape):
        u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a fit is the same each time
            u, s, v = torch.svd_lowrank(delta, q=kept + OVERSAMPLE, niter=ITERATIONS)
        vh = v.T
    root = s[:kept].sqrt()
    pair = Factors(
        lora_a=(root[:, None] * vh[:kept]).float().contiguous(), lora_b=(u[:, :kept] * root).float().contiguous()
    )
    norm = float(delta.double().norm())
    missed = float((pair.lora_b.double() @ pair.lora_a.double() - delta.double()).norm())
    return pair, missed / norm if norm else 0.0


def singular_values(adapter: Adapter, module: str) -> torch.Tensor:
    """Return the singular values of a module's delta-W, largest first, fp64 [min(r, out, in)]."""
    item = adapter.factors[module]
    left = torch.linalg.qr(item.lora_b.double()).R  # (min(out, r), r)
    right = torch.linalg.qr(item.lora_a.double().T).R  # (min(in, r), r)
    values: torch.Tensor = torch.linalg.svdvals(abs(adapter.scaling(module)) * (left @ right.T))
    return values


def effective_rank(values: torch.Tensor) -> float:
    """Return exp(entropy of the singular values as shares of their sum): Roy and Vetterli, EUSIPCO 2007, eq. 3.

    Args:
        values: singular values, [n].

    Returns:
        From 1 (one direction) to n (all alike); 0 where all are 0.
    """
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values[values > 0] / total
    return float(torch.exp(-(shares * shares.log()).sum()))
