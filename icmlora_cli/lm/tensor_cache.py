"""Tensors that are computed once with the base and cached in files with checksums.

A cache that is damaged or cannot be written is no error: what it lacks is computed again.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from icmlora_cli.disk import checksums, files
from icmlora_cli.errors import OutOfSpaceError

DAMAGED = "cached task vectors are damaged, and are read from the base again"


def keep(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors into the cache with a checksum; where it is read-only or full, it goes without them.

    Args:
        path: the file to write.
        tensors: the tensors by name.
    """

    def write(temporary: Path) -> None:
        save_file(dict(tensors), temporary, metadata=checksums.checked_metadata())
        checksums.write_checksum(temporary)

    with suppress(OSError, OutOfSpaceError, SafetensorError):
        files.write_with(path, write)


def cached(path: Path, on_note: Callable[[str], None]) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a cached file; None where there is none that can be read and is what was written.

    Args:
        path: the file.
        on_note: told ``DAMAGED`` where the file is not what was written.
    """
    with suppress(OSError):
        if checksums.is_intact(path, required=True):
            return load_file(path)
        on_note(DAMAGED)
    return None
