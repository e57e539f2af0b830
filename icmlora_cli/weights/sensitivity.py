"""How much the loss of a task depends on each number of its adapter's cores: the file that a harvest leaves of it.

It is the mean squared gradient of the cores, which Adam keeps anyway as the estimate of the second moment: roughly the
diagonal of the Fisher information, so that the squared errors that it weights tell roughly what the errors cost.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from icmlora_cli.disk import files

LARGEST = 65504.0  # of fp16
SMALLEST = 1e-38  # keeps a division by a mean of zero from giving NaN


def write_sensitivity(path: Path, squares: Mapping[str, torch.Tensor]) -> None:
    """Write the mean squared gradients of an adapter's cores, divided by their mean so that fp16 holds them.

    Args:
        path: the file to write.
        squares: for each module by its full name, the mean squared gradient of its core, [R, R].

    Raises:
        OutOfSpaceError: if the disk is full.
    """
    mean = torch.stack([item.detach().double().mean() for item in squares.values()]).mean().clamp(min=SMALLEST)
    stored = {
        name: (item.detach().double() / mean).clamp(max=LARGEST).half().cpu().contiguous()
        for name, item in squares.items()
    }
    files.write_with(path, lambda temporary: save_file(stored, temporary))


def read_sensitivity(path: Path) -> dict[str, torch.Tensor]:
    """Return what ``write_sensitivity`` wrote: for each module by its full name, fp32 [R, R]; their mean is about 1.

    Args:
        path: the file, whose checksum has been compared.
    """
    return {name: item.float() for name, item in load_file(path).items()}
