"""Unpacking an export archive of unknown origin; every size is checked before anything is decompressed to it."""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import zstandard

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, OutOfSpaceError
from icmlora_cli.registry.upkeep.archive import LISTING, Member, Thing, broken, read_listing

MAGIC = b"\x28\xb5\x2f\xfd"
WINDOW = 1 << 27  # bytes of memory that a frame may need to be decompressed
CHUNK = 1 << 10  # compressed bytes that are read at a time; one such chunk can become at most about 32 MiB
SLACK = 1 << 16  # bytes for headers and padding around a member
LISTING_BYTES = 1 << 25  # bytes of a listing at most, which is enough for some 200,000 files
ROOM = 1 << 28  # bytes that any archive may unpack to
RATIO = 200  # an archive may also unpack to that many times its own size


class _BoundedStream:
    """Decompresses one zstd frame, up to the number of bytes in ``budget``.

    Args:
        source: the archive, opened at its start.
        where: the archive's path, for messages.
    """

    def __init__(self, source: IO[bytes], where: Path) -> None:
        self.source, self.where = source, where
        self.budget = SLACK
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self._ready = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end of the frame.

        Raises:
            CorruptFileError: If the frame is damaged or cut short, or the budget is exceeded.
        """
        while len(self._ready) < size and not self._ended:
            self._feed()
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        self.budget -= len(taken)
        if self.budget < 0:
            raise broken(self.where, "it holds more than its listing says")
        return taken

    def _feed(self) -> None:
        data = self.source.read(CHUNK)
        if not data:
            raise broken(self.where, "it is cut short")
        try:
            self._ready += self._decompressor.decompress(data)
        except zstandard.ZstdError as error:
            raise broken(self.where, f"its compressed data is damaged: {error}") from error
        if self._decompressor.eof:
            self._ended = True
            if self._decompressor.unused_data or self.source.read(1):
                raise broken(self.where, "something follows its end")

    def finish(self) -> None:
        """Read the padding up to the end of the frame, where zstd compares its checksum.

        Raises:
            CorruptFileError: If there is anything but padding, or the checksum differs.
        """
        self.budget = SLACK
        while data := self.read(CHUNK):
            if data.strip(b"\0"):
                raise broken(self.where, "something follows its last file")


def unpack(
    path: Path,
    into: Path,
    *,
    most: int | None,
    on_listing: Callable[[tuple[Thing, ...]], None],
    on_file: Callable[[str], None],
) -> tuple[Thing, ...]:
    """Unpack an archive into an empty folder and compare every file with its hash.

    Args:
        path: the archive.
        into: the empty folder; its content has to be deleted after an error.
        most: the bytes that the archive may unpack to; None allows ``ROOM``, or ``RATIO`` times its own size if that
            is more.
        on_listing: called with the listed things before anything is unpacked; it may raise.
        on_file: called with the path of each file before it is unpacked.

    Returns:
        The things that were unpacked.

    Raises:
        CorruptFileError: If it is not such an archive, is damaged or cut short, is too large, or holds links, devices,
            paths that lead elsewhere, or anything else that is not listed.
        OutOfSpaceError: If there is not enough space on the disk.
    """
    with path.open("rb") as source:
        limit = max(ROOM, RATIO * path.stat().st_size) if most is None else most
        _check_frame(source, path, limit)
        stream = _BoundedStream(source, path)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                things = read_listing(_listing(tar, stream), path)
                _check_room(path, into, things, limit)
                on_listing(things)
                for thing in things:
                    for item in thing.files:
                        on_file(f"{thing.folder}/{item.path}")
                        _extract(tar, stream, f"{thing.folder}/{item.path}", item, into)
                stream.budget = SLACK
                if tar.next() is not None:
                    raise broken(path, "it holds a file that is not listed")
        # tarfile raises ValueError for bad numbers in PAX and sparse headers
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise broken(path, f"it is not a whole tar file: {error}") from error
        stream.finish()
    return things


def _check_frame(source: IO[bytes], path: Path, limit: int) -> None:
    start = source.read(18)  # the longest header of a frame
    source.seek(0)
    if not start.startswith(MAGIC):
        raise broken(path, "it is not compressed with zstd")
    try:
        declared = zstandard.frame_content_size(start)
    except zstandard.ZstdError as error:
        raise broken(path, f"its first bytes are damaged: {error}") from error
    if declared > limit + LISTING_BYTES:
        raise _too_large(path, declared, limit)


def _listing(tar: tarfile.TarFile, stream: _BoundedStream) -> bytes:
    first = tar.next()
    if first is None or first.name != LISTING or not _plain(first):
        raise broken(stream.where, f"its first file is not {LISTING}")
    if first.size > LISTING_BYTES:
        raise broken(stream.where, f"its listing would be {first.size} bytes long")
    stream.budget = first.size + SLACK
    handle = tar.extractfile(first)
    assert handle is not None
    return handle.read()


def _plain(item: tarfile.TarInfo) -> bool:
    return item.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and item.sparse is None


def _check_room(path: Path, into: Path, things: tuple[Thing, ...], limit: int) -> None:
    total = sum(thing.bytes for thing in things)
    if total > limit:
        raise _too_large(path, total, limit)
    free = shutil.disk_usage(into).free
    if total > free:
        raise OutOfSpaceError(
            f"{path.name} unpacks to {total / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            where=str(into.parent),
            hint="free some space, or set ICMLORA_HOME to a folder on another disk, then run the command again",
        )


def _too_large(path: Path, total: int, limit: int) -> CorruptFileError:
    return CorruptFileError(
        f"{path.name} says that it unpacks to {total / 1e9:.2f} GB; up to {limit / 1e9:.2f} GB are taken",
        where=str(path),
        hint=f"if you know what it is: icmlora registry import {path.name} --max-gb {total // 10**9 + 1}",
    )


def _extract(tar: tarfile.TarFile, stream: _BoundedStream, name: str, item: Member, into: Path) -> None:
    stream.budget = SLACK
    entry = tar.next()
    if entry is None:
        raise broken(stream.where, f"{name} is listed, and is not there")
    if entry.name != name or not _plain(entry) or entry.size != item.bytes:
        raise broken(stream.where, f"it holds {entry.name[:200]!r} where {name} of {item.bytes} bytes is listed")
    stream.budget = entry.size + SLACK
    handle = tar.extractfile(entry)
    assert handle is not None
    target, digest = into / name, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.disk_errors(target), target.open("xb") as out:
        while data := handle.read(1 << 20):
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != item.sha256:
        raise broken(stream.where, f"{name} is not what its SHA-256 says")
