"""The forms in which a generator's numbers are stored: fp32, bf16, or int8 with a scale per row (symmetric absmax)."""

from collections.abc import Mapping
from typing import Literal

import torch

Storage = Literal["fp32", "bf16", "int8"]
SCALE = ".scale"  # ends the name of the tensor with the scales of an int8 tensor
SMALL = 4096  # numbers; smaller tensors, such as norms and biases, are stored in bf16 rather than int8


def packed(tensors: Mapping[str, torch.Tensor], storage: Storage) -> dict[str, torch.Tensor]:
    """Return the tensors as they are stored.

    Args:
        tensors: the tensors by name, fp32; integer tensors stay as they are.
        storage: the form: ``fp32``, ``bf16`` or ``int8``.
    """
    stored: dict[str, torch.Tensor] = {}
    for name, item in tensors.items():
        if storage == "fp32" or not item.is_floating_point():
            stored[name] = item.contiguous()
        elif storage == "bf16" or item.dim() < 2 or item.numel() < SMALL:
            stored[name] = item.to(torch.bfloat16).contiguous()
        else:
            scale = (item.abs().amax(-1, keepdim=True) / 127.0).clamp(min=1e-30).to(torch.bfloat16)
            stored[name] = (item / scale.float()).round().clamp(-127, 127).to(torch.int8).contiguous()
            stored[name + SCALE] = scale.contiguous()
    return stored


def unpacked(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return stored tensors as fp32 ones; integer tensors other than int8 stay as they are.

    Raises:
        KeyError: If the scales of an int8 tensor are missing.
    """
    values: dict[str, torch.Tensor] = {}
    for name, item in tensors.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in tensors:
            continue
        if item.dtype == torch.int8:
            values[name] = item.float() * tensors[name + SCALE].float()
        else:
            values[name] = item.float() if item.is_floating_point() else item
    return values
