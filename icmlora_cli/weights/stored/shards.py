"""Safetensors files, read and written block by block, so that memory holds no more than a block.

Source of the format: safetensors' README. 8 bytes little-endian header length, the header as JSON, padded with blanks
to a multiple of 8, then the tensors' bytes without holes. ``save_file`` orders them by dtype, the widest first, then by
name.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from icmlora_cli.disk.files import FULL
from icmlora_cli.disk.safetensors_header import safetensors_header
from icmlora_cli.errors import CorruptFileError

BLOCK = 1 << 17  # numbers that are worked on at once; their fp32 fits a processor's cache
COPIED = 1 << 20  # bytes that are copied at once where the kernel does not do it
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# safetensors' own order, the first to be written first
ORDER = (
    *("U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8_E8M0", "F8_E4M3", "F8_E5M2"),
    *("I8", "U8", "F6_E3M2", "F6_E2M3", "F4", "BOOL"),
)
METADATA = "__metadata__"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file.

    Args:
        name: The key of the tensor.
        dtype: as safetensors names it.
        shape: The sizes of its dimensions.
        begin: The offset of its first byte in the file.
        end: the byte after its last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def row(self) -> int:
        """How many numbers stand behind each index of the first dimension."""
        return math.prod(self.shape[1:])


@dataclass(frozen=True)
class Shard:
    """A safetensors file, by its header.

    Args:
        path: the file.
        header: as it is there, with its length before it.
        metadata: The texts in its header.
        tensors: in the order of their bytes.
    """

    path: Path
    header: bytes
    metadata: Mapping[str, str]
    tensors: tuple[StoredTensor, ...]


def read_shard(path: Path) -> Shard:
    """Return what a safetensors file holds; no tensor is read.

    Raises:
        CorruptFileError: if it is missing, cut short or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt"):  # its header is checked there, against the file's size
            raw = safetensors_header(path)
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(
            f"{path.name} is not a readable safetensors file: {error}",
            where=str(path),
            hint="copy or pull the base model again: icmlora base pull NAME",
        ) from error
    entries = json.loads(raw)
    metadata, start = entries.pop(METADATA, {}), 8 + len(raw)
    tensors = [
        StoredTensor(name, item["dtype"], tuple(item["shape"]), *(start + offset for offset in item["data_offsets"]))
        for name, item in entries.items()
    ]
    ordered = tuple(sorted(tensors, key=lambda item: (item.begin, item.end)))
    return Shard(path, len(raw).to_bytes(8, "little") + raw, metadata, ordered)


Blocks = Iterator[tuple[slice, torch.Tensor]]
Change = Callable[[Callable[[], Blocks]], Blocks]
"""Makes new blocks of a tensor's rows, each of the same rows, of what gives the old ones as often as it is asked."""


@dataclass(frozen=True)
class WrittenShard:
    """One tensor of a file that is to be written.

    Args:
        name: The key of the tensor.
        source: the tensor that it is made of.
        dtype: as safetensors names it.
        change: what is done to it on the way, in fp32 or wider; None leaves its numbers as they are.
    """

    name: str
    source: StoredTensor
    dtype: str
    change: Change | None = None

    @property
    def copied(self) -> bool:
        """Whether its bytes are those of the source."""
        return self.change is None and self.dtype == self.source.dtype

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        if self.dtype == self.source.dtype:
            return self.source.end - self.source.begin
        return math.prod(self.source.shape) * FLOATS[self.dtype].itemsize


def write_shard(path: Path, shard: Shard, tensors: Sequence[WrittenShard], on_tensor: Callable[[], None]) -> int:
    """Write a safetensors file of the tensors of another one.

    Where names and dtypes stay the same, header and order are those of the source; else they are as ``save_file``
    makes them.

    Args:
        path: to write; not synced.
        shard: the source.
        tensors: what is to be in it.
        on_tensor: called after each tensor.

    Returns:
        The bytes of all tensors.

    Raises:
        CorruptFileError: if a changed number is not finite in its dtype.
    """
    with _one_thread():
        return _written(path, shard, tensors, on_tensor)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread: blocks are small, and where cores are shared several wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _written(path: Path, shard: Shard, tensors: Sequence[WrittenShard], on_tensor: Callable[[], None]) -> int:
    same = [(item.name, item.dtype) for item in tensors] == [(item.name, item.dtype) for item in shard.tensors]
    ordered = tensors if same else sorted(tensors, key=lambda item: (_place(item.dtype), item.name))
    header = shard.header if same else _header(ordered, shard.metadata)
    path.write_bytes(header)
    copied, changed, end = list[tuple[WrittenShard, int]](), list[tuple[WrittenShard, int]](), len(header)
    for item in ordered:
        (copied if item.copied else changed).append((item, end))
        end += item.bytes
    with ThreadPoolExecutor(1) as pool:  # one thread has the disk and the kernel copy while the other computes
        copying = pool.submit(_copy_all, shard.path, path, copied)
        with shard.path.open("rb") as source, path.open("rb+") as out:
            for item, place in changed:
                out.seek(place)
                _write_changed(source, out, item)
                on_tensor()
        copying.result()
    for _ in copied:
        on_tensor()
    return end - len(header)


def _place(dtype: str) -> int:
    return ORDER.index(dtype) if dtype in ORDER else len(ORDER)


def _header(ordered: Sequence[WrittenShard], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for item in ordered:
        begin, end = end, end + item.bytes
        entries[item.name] = {"dtype": item.dtype, "shape": item.source.shape, "data_offsets": [begin, end]}
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _copy_all(source_path: Path, path: Path, copied: Sequence[tuple[WrittenShard, int]]) -> None:
    with source_path.open("rb") as source, path.open("rb+") as out:
        for item, place in copied:
            _copy(source, out, item.source.begin, item.source.end, place)


def _copy(source: BinaryIO, out: BinaryIO, begin: int, end: int, place: int) -> None:
    """Copy bytes of the source to a place of the output, within the kernel where the system can."""
    while begin < end and hasattr(os, "copy_file_range"):
        try:
            done = os.copy_file_range(source.fileno(), out.fileno(), end - begin, begin, place)
        except OSError as error:
            if error.errno in FULL:
                raise
            break  # not between these file systems
        if not done:
            break
        begin, place = begin + done, place + done
    source.seek(begin)
    out.seek(place)
    while begin < end:
        piece = source.read(min(COPIED, end - begin))
        if not piece:
            raise _shorter(source)
        out.write(piece)
        begin += len(piece)
    out.flush()


def _shorter(source: BinaryIO) -> CorruptFileError:
    return CorruptFileError("a file of the base model became shorter while it was read", where=source.name)


def _blocks(source: BinaryIO, item: StoredTensor) -> Blocks:
    """Yield a tensor of floats in blocks of rows, in fp32 or wider; one of no or one dimension as it is."""
    kind = FLOATS[item.dtype]
    rows = item.shape[0] if item.shape else 1
    step = max(1, BLOCK // max(1, item.row))
    for first in range(0, rows, step):
        last = min(rows, first + step)
        block = torch.empty((last - first) * item.row, dtype=kind)
        source.seek(item.begin + first * item.row * kind.itemsize)
        if source.readinto(_bytes_of(block)) != block.nbytes:  # type: ignore[attr-defined]
            raise _shorter(source)
        shaped = block.reshape(last - first, *item.shape[1:])
        yield slice(first, last), shaped.to(torch.promote_types(kind, torch.float32))


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _finite(tensor: torch.Tensor) -> bool:
    """Tell whether all numbers are finite; many times as fast as ``torch.isfinite``."""
    return tensor.numel() == 0 or all(math.isfinite(float(edge)) for edge in torch.aminmax(tensor))


def _write_changed(source: BinaryIO, out: BinaryIO, item: WrittenShard) -> None:
    kind = FLOATS[item.dtype]

    def old() -> Blocks:
        return _blocks(source, item.source)

    for _, block in old() if item.change is None else item.change(old):
        rounded = block.to(kind).contiguous()
        if item.change is not None and not _finite(rounded):
            raise CorruptFileError(
                f"{item.name} is not finite in {item.dtype} once the adapter is merged",
                where=source.name,
                hint="--dtype fp32 or bf16, which hold larger numbers; or a smaller weight of the adapter",
            )
        out.write(_bytes_of(rounded))
