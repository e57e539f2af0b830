"""The form of a made adapter: how many directions it keeps, the numbers of its factors, the size of delta-W."""

import math
from dataclasses import replace
from typing import Literal

import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.weights.adapter import Adapter, Factors, at_rank, weighted_sum

Dtype = Literal["fp32", "bf16", "fp16"]
Format = Literal["peft", "gguf"]
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM 0.33 takes for --max-lora-rank
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_name(dtype: torch.dtype) -> Dtype:
    """Return our name of one of these number formats."""
    return next(name for name, kind in DTYPES.items() if kind == dtype)


def leading(adapter: Adapter, rank: int) -> Adapter:
    """Return an adapter of the first directions of each module's factors, with the same scaling.

    Of an adapter that ``Codec.decode`` made they are the leading singular directions of delta-W, so that it is the
    nearest of its rank (Eckart and Young, 1936).

    Args:
        adapter: all modules of one rank.
        rank: how many directions to keep, at most.
    """
    rank = min(rank, adapter.rank)
    factors = {
        name: Factors(lora_a=item.lora_a[:rank].clone(), lora_b=item.lora_b[:, :rank].clone())
        for name, item in adapter.factors.items()
    }
    share = rank / adapter.rank
    return _resized(replace(adapter, factors=factors), math.sqrt(share) if adapter.use_rslora else share)


def scaled(adapter: Adapter, scale: float) -> Adapter:
    """Return the adapter whose delta-W is ``scale`` times as large, through its alpha: the factors stay the same."""
    return _resized(adapter, scale)


def _resized(adapter: Adapter, factor: float) -> Adapter:
    own = {name: alpha * factor for name, alpha in adapter.alphas.items()}
    return replace(adapter, alpha=adapter.alpha * factor, alphas=own)


def cast(adapter: Adapter, dtype: Dtype) -> Adapter:
    """Return the adapter with its factors in another number format.

    Raises:
        UsageError: if a number is too large for it.
    """
    kind = DTYPES[dtype]
    factors = {
        name: Factors(lora_a=item.lora_a.to(kind), lora_b=item.lora_b.to(kind))
        for name, item in adapter.factors.items()
    }
    for name, item in factors.items():
        if not (torch.isfinite(item.lora_a).all() and torch.isfinite(item.lora_b).all()):
            raise UsageError(f"the factors of {name} are too large for {dtype}", hint="--dtype bf16, or fp32")
    return replace(adapter, factors=factors)


def servable(adapter: Adapter) -> Adapter:
    """Return the same delta-W in the plainest form: one rank that servers know, all scaling within ``lora_B``.

    Ranks and alphas of single modules and rsLoRA are gone then; what is missing in rank is filled up with zeros.

    Raises:
        UsageError: if the rank is above all that servers know.
    """
    plain = weighted_sum([adapter], [1.0])
    rank = next((rank for rank in SERVED_RANKS if rank >= plain.rank), None)
    if rank is None:
        raise UsageError(
            f"an adapter of rank {plain.rank} cannot be served: at most {SERVED_RANKS[-1]}",
            hint=f"icmlora gen --rank {SERVED_RANKS[-1]} or less",
        )
    return at_rank(plain, rank)
