"""How a generator's numbers are stored: fp32, bf16, or int8 with a scale for each row (symmetric absmax)."""

from collections.abc import Mapping
from typing import Literal

import torch

Storage = Literal["fp32", "bf16", "int8"]
SCALE = ".scale"
SMALL = 4096  # numbers; what is smaller, such as norms and biases, is kept in bf16


def packed(tensors: Mapping[str, torch.Tensor], storage: Storage) -> dict[str, torch.Tensor]:
    """Return the tensors as they are stored.

    Args:
        tensors: fp32, by name; integers stay as they are.
        storage: ``fp32``, ``bf16`` or ``int8``.
    """
    kept: dict[str, torch.Tensor] = {}
    for name, item in tensors.items():
        if storage == "fp32" or not item.is_floating_point():
            kept[name] = item.contiguous()
        elif storage == "bf16" or item.dim() < 2 or item.numel() < SMALL:
            kept[name] = item.to(torch.bfloat16).contiguous()
        else:
            scale = (item.abs().amax(-1, keepdim=True) / 127.0).clamp(min=1e-30).to(torch.bfloat16)  # any magnitude
            kept[name] = (item / scale.float()).round().clamp(-127, 127).to(torch.int8).contiguous()
            kept[name + SCALE] = scale.contiguous()
    return kept


def unpacked(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return stored tensors as fp32.

    Raises:
        KeyError: if a scale is missing.
    """
    found: dict[str, torch.Tensor] = {}
    for name, item in tensors.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in tensors:
            continue
        if item.dtype == torch.int8:
            found[name] = item.float() * tensors[name + SCALE].float()
        else:
            found[name] = item.float() if item.is_floating_point() else item
    return found
