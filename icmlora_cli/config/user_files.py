"""Reads files that a user names, provided that they are regular files, small enough and UTF-8."""

import gc
import gzip
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icmlora_cli.errors import SpecError, UsageError

MAX_DATA = 1 << 29  # bytes of a file of examples, unpacked
GZIP = ".gz"


def read_bytes(path: Path, *, limit: int = MAX_DATA, hint: str = "check the path") -> bytes:
    """Return a file's bytes; a file whose name ends with ``.gz`` is unpacked.

    Args:
        path: the file.
        limit: the largest number of bytes that the file may hold, unpacked.
        hint: what the error advises if there is no such file.

    Raises:
        UsageError: If the file does not exist, is not a regular one (reading a pipe might never end), or cannot be
            read.
        SpecError: If the file holds more than ``limit`` bytes, or is named ``.gz`` and is not a gzip file.
    """
    where = str(path.absolute())
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{str(path)!r} is a folder", where=where, hint="give the file in it")
        if not stat.S_ISREG(mode):
            raise UsageError(f"{str(path)!r} is no regular file", where=where, hint="write its content to a file first")
        with gzip.open(path) if path.suffix.lower() == GZIP else path.open("rb") as handle:
            data = handle.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"there is no file {str(path)!r}", where=where, hint=hint) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SpecError(f"{path} has one fault", [f"{path}:1: not valid gzip: {error}"]) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise UsageError(
            f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}", where=where
        ) from error
    if len(data) > limit:
        fault = f"{path}:1: is larger than {limit // 2**20} MiB"
        raise SpecError(f"{path} has one fault", [fault], hint="divide it into several files")
    return data


def read_text(path: Path, *, limit: int = MAX_DATA, hint: str = "check the path") -> str:
    """Return a file's text, without a byte order mark.

    Args:
        path: the file.
        limit: the largest number of bytes that the file may hold, unpacked.
        hint: what the error advises if there is no such file.

    Raises:
        UsageError: If the file does not exist, is not a regular one, or cannot be read.
        SpecError: If the file is too large, is not UTF-8, or is named ``.gz`` and is not a gzip file.
    """
    try:
        return read_bytes(path, limit=limit, hint=hint).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fault = f"{path}:{line}: byte {error.object[error.start]:#04x} is not UTF-8"
        raise SpecError(f"{path} has one fault", [fault], hint="save the file as UTF-8 text") from error


@contextmanager
def no_collector() -> Iterator[None]:
    """Pause the garbage collector while many objects are made of a file; each of its runs would visit all so far."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
