"""What a weights file says it holds, before any of it is loaded: names, dtypes, shapes.

Source of the format: safetensors' README. 8 bytes little-endian header length N, N bytes of JSON, the tensors' bytes.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk.files import as_object, is_object
from icmlora_cli.disk.safetensors_header import SIZES, raw_header
from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError

LARGEST_HEADER = 16 << 20  # bytes; an adapter on 50,000 modules of experts needs about half
BYTES_A_MARK, SPARE_MARKS = 5, 1000  # bytes of a header for each bracket or comma, at least; a tensor's entry has seven
MOST_DIMENSIONS, LARGEST_NUMBER = 8, 1 << 63  # a LoRA has matrices; the product of 50,000 long numbers takes seconds
AGAIN = "the file is cut short or damaged: get it again from where it came"
SAVE_AGAIN = "save it again with PEFT's save_pretrained, or get it again from where it came"
PICKLE_ADVICE = (
    "convert it where it is trusted (PEFT's save_pretrained writes safetensors), or, at your own risk, --allow-pickle"
)


@dataclass(frozen=True)
class TensorEntry:
    """A tensor's dtype (as safetensors names it) and shape."""

    dtype: str
    shape: tuple[int, ...]


def sniff(path: Path) -> None:
    """Refuse a file whose first bytes are those of another format, whatever its name.

    Raises:
        UnsupportedAdapterError: naming the format, and the tool that converts it.
    """
    with path.open("rb") as handle:
        start = handle.read(8)
    if start[:4] in (b"GGUF", b"algg", b"ggla"):
        raise UnsupportedAdapterError(
            f"{path.name} is a llama.cpp adapter (GGUF), not PEFT's format",
            where=str(path),
            hint="import the PEFT folder that llama.cpp's convert_lora_to_gguf.py made it from; where that is gone, "
            "merge it with llama-export-lora and take the LoRA out again with mergekit-extract-lora",
        )
    if start[:2] == b"PK":
        raise UnsupportedAdapterError(
            f"{path.name} is a zip archive, most likely a PyTorch pickle under another name",
            where=str(path),
            hint=PICKLE_ADVICE,
        )
    protocol = start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    # these two bytes can also begin a safetensors header's length, and then it is a sane one
    if protocol and int.from_bytes(start, "little") > LARGEST_HEADER:
        raise UnsupportedAdapterError(
            f"{path.name} is a Python pickle under another name, which can run code when it is read",
            where=str(path),
            hint=PICKLE_ADVICE,
        )


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Return what a safetensors file holds, having read no more than its header.

    Raises:
        CorruptFileError: if the header is longer than the file or than is sane, is no JSON of tensors, or does not
            describe the file's bytes exactly.
        UnsupportedAdapterError: if the file is of another format, or a dtype is not a plain float.
    """
    sniff(path)
    size, length, raw = raw_header(path, LARGEST_HEADER)
    if size < 10:
        raise CorruptFileError(f"{path.name} has {size} bytes: too few for a header", where=str(path), hint=AGAIN)
    if length > LARGEST_HEADER:
        raise CorruptFileError(
            f"{path.name} claims a header of {length:,} bytes, and at most {LARGEST_HEADER:,} are read",
            where=str(path),
            hint="no LoRA needs such a header: the file is damaged, or meant to exhaust memory",
        )
    if length > size - 8:
        raise CorruptFileError(
            f"{path.name} has {size:,} bytes, fewer than its header alone", where=str(path), hint=AGAIN
        )
    if sum(map(raw.count, (b"{", b"[", b","))) > len(raw) // BYTES_A_MARK + SPARE_MARKS:  # takes 30 times its bytes
        raise CorruptFileError(
            f"the header of {path.name} is broken: it has more brackets and commas than entries need",
            where=str(path),
            hint=AGAIN,
        )
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        json.dumps(header, ensure_ascii=False).encode()  # halves of surrogate pairs, which no terminal can show
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"the header of {path.name} is broken: {error}", where=str(path), hint=AGAIN) from error
    if not is_object(header):
        raise CorruptFileError(f"the header of {path.name} is not a JSON object", where=str(path), hint=AGAIN)
    header.pop("__metadata__", None)
    found, end = {}, 0
    for name, value in sorted(header.items(), key=_start):
        found[name], end = _entry(name, value, end, path)
    if 8 + length + end != size:
        raise CorruptFileError(
            f"{path.name} has {size:,} bytes, and its header describes {8 + length + end:,}",
            where=str(path),
            hint=AGAIN,
        )
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _start(item: tuple[str, object]) -> int:
    offsets = as_object(item[1]).get("data_offsets")
    first = offsets[0] if isinstance(offsets, list) and offsets else 0
    return first if type(first) is int else 0


def _entry(name: str, value: object, before: int, path: Path) -> tuple[TensorEntry, int]:
    """Return a tensor's entry and where its bytes end, given where the one before it ended."""
    try:
        entry = as_object(value)
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        assert isinstance(dtype, str) and isinstance(shape, list) and len(shape) <= MOST_DIMENSIONS
        assert all(type(item) is int and 0 <= item < LARGEST_NUMBER for item in (*shape, begin, end))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path.name}: the entry of {name[:120]!r} is broken", where=str(path), hint=AGAIN
        ) from error
    if dtype not in SIZES:
        raise UnsupportedAdapterError(
            f"{name[:200]} is of dtype {dtype[:20]}; an adapter's numbers are F32, F16 or BF16",
            where=str(path),
            hint="dequantize the adapter with the tool that made it, and save it in bf16",
        )
    if begin != before or end - begin != math.prod(shape) * SIZES[dtype]:
        raise CorruptFileError(
            f"{path.name}: the bytes of {name[:120]!r} are not where its shape {tuple(shape)} puts them",
            where=str(path),
            hint=AGAIN,
        )
    return TensorEntry(dtype, tuple(shape)), end
