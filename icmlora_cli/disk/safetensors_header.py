"""The headers of safetensors files, read without torch: what a file holds, and whether it is whole.

Source of the format: safetensors' README. 8 bytes little-endian header length, the header as JSON, then the tensors'
bytes without holes.
"""

import json
import os
from pathlib import Path
from typing import Any

from icmlora_cli.disk.files import as_object
from icmlora_cli.errors import CorruptFileError

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of a number, by the format's name of its dtype
NAMES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}  # as icmlora calls them


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file is as long as its header says, without reading the tensors.

    The format: 8 bytes little-endian header length, JSON header, then the tensors' bytes without holes.

    Raises:
        CorruptFileError: If the file is cut short or its header is damaged.
    """
    size, length, header = _header(path)
    try:
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        whole = bool(header) and size == 8 + length + max(ends, default=0)
    except (KeyError, TypeError, IndexError):
        whole = False
    if not whole:
        raise CorruptFileError(
            f"{path.name} is damaged or cut short ({size} bytes)",
            where=str(path),
            hint="copy or pull the base model again: icmlora base pull NAME",
        )


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file; none where it is damaged."""
    return {str(key): str(value) for key, value in as_object(_header(path)[2].get("__metadata__")).items()}


def safetensors_header(path: Path) -> bytes:
    """Return the JSON header of a safetensors file, as it is; nothing where the file is shorter than it claims.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    return raw_header(path)[2]


def raw_header(path: Path, largest: int | None = None) -> tuple[int, int, bytes]:
    """Return the size of a safetensors file, the length that it claims for its header, and the header, all in bytes.

    The header is empty where the file is shorter than it claims.

    Args:
        path: The file.
        largest: The longest header that is read; a longer one is empty too. None reads one of any length.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        length = int.from_bytes(handle.read(8), "little")
        readable = 0 < length <= size - 8 and (largest is None or length <= largest)
        return size, length, handle.read(length) if readable else b""


def _header(path: Path) -> tuple[int, int, dict[str, Any]]:
    """Return the bytes of a safetensors file, those of its header, and the header; empty where it is damaged."""
    size, length, raw = raw_header(path)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        header = {}
    return size, length, as_object(header)
