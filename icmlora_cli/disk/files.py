"""Writing so that a reader never sees half a file: temporary name, fsync, ``os.replace``."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from icmlora_cli.disk import temporary as temporaries
from icmlora_cli.errors import CorruptFileError, OutOfSpaceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = temporaries.PREFIX


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space" in the body into one clear error.

    Raises:
        OutOfSpaceError: if the disk, quota or file size limit is exhausted.
    """
    try:
        yield
    except Exception as error:
        code = _code(error)
        if code not in FULL:
            raise
        raise OutOfSpaceError(
            f"cannot write {path.name}: {os.strerror(code)}",
            where=str(path.parent),
            hint="free some space, or set ICMLORA_HOME to a folder on another disk, then run the command again",
        ) from error


def _code(error: Exception) -> int:
    """Return the system's error number; libraries written in Rust, such as safetensors, only put it in their text."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0


READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def cache_write() -> Iterator[None]:
    """Let a write to the cache in the body fail where the cache is read-only: what it holds can be made again."""
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise


def behind_links(path: Path) -> Path:
    """Return where a path leads, so that writing it goes through a link, as ``cp`` does, and leaves the link."""
    return path.resolve() if path.is_symlink() else path


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_others_make(path: Path) -> None:
    """Give a file the mode that the umask asks for; safetensors makes its files for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make the file in a temporary folder beside ``path``, then move it into place.

    Libraries make temporary files of their own beside what they write, under names that do not say whose they are, as
    safetensors does; those of a killed process are found, and go, with the folder.

    Raises:
        OutOfSpaceError: if the disk is full; ``path`` is then what it was before.
    """
    path = behind_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = temporaries.beside(path)
    try:
        with disk_errors(path):
            folder.mkdir()
            write(folder / path.name)
            _as_others_make(folder / path.name)
            _into_place(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    path = behind_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporaries.beside(path)
    try:
        with disk_errors(path):
            temporary.write_bytes(data)
            _into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _into_place(temporary: Path, path: Path) -> None:
    """Bring a file to the disk, then to its name."""
    sync_file(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON object to ``path``, whole or not at all."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Return what ``write_json`` writes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path.name} is not valid JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise CorruptFileError(f"{path.name} does not hold a JSON object", where=str(path))
    return value


def as_object(value: object) -> dict[str, Any]:
    """Return a value of another program's JSON as an object; an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """Return the hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def sync_tree(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)


def delete_folder(folder: Path) -> None:
    """Delete a folder so that it is never seen half deleted: it takes a temporary name first."""
    gone = temporaries.beside(folder, "gone")
    os.replace(folder, gone)
    if gone.is_symlink():  # what it leads to is elsewhere, and stays
        gone.unlink()
    else:
        shutil.rmtree(gone)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder``, sorted, but hidden and temporary ones; none where it is not there."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.is_dir() and not path.name.startswith(".")]


def finished_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files below a folder whose names end with ``suffix``, sorted.

    What is temporary, or in a temporary folder, is left out: a running process may be writing it.
    """
    found = []
    for at, folders, names in os.walk(folder):  # unlike Path.rglob, it passes over a folder that is gone meanwhile
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        found += [Path(at, name) for name in names if name.endswith(suffix) and not name.startswith(TEMPORARY)]
    return sorted(found)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder`` (0 where there is none), but for what vanishes meanwhile."""
    total, waiting = 0, [os.fspath(folder)] if folder.is_dir() else []
    while waiting:
        # a registry has thousands of folders: Path.rglob is slow
        with suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    total += entry.stat().st_size
    return total


def freed_bytes(*paths: Path) -> int:
    """Return the bytes that deleting files and folders gives back.

    What has a hard link elsewhere stays on the disk, and counts nothing; what has two of them in here counts once.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        for item in (path, *(path.rglob("*") if path.is_dir() else ())):
            stat = item.lstat()
            if not S_ISDIR(stat.st_mode):
                found.setdefault((stat.st_dev, stat.st_ino), [stat.st_size, stat.st_nlink])[1] -= 1
    return sum(size for size, elsewhere in found.values() if elsewhere <= 0)


def sweep(path: Path, *, alone: bool) -> None:
    """Delete what killed writers of ``path`` left beside it; what one was about to replace goes back to its place.

    Args:
        path: a file or folder, there or not.
        alone: nobody else can be writing it now, so that all is left over; else only what no running process made is.
    """
    for left in path.parent.glob(f"{TEMPORARY}*"):
        said = temporaries.parse(left.name)
        if said is None or said.name != path.name or (not alone and temporaries.in_use(left)):
            continue
        if said.role == "old" and not path.exists():
            os.replace(left, path)
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` when the body ends well.

    An existing ``path`` is replaced then, and only then; of a link, what it leads to. What killed processes left of
    earlier attempts goes first.

    Raises:
        OutOfSpaceError: if the disk is full.
    """
    path = behind_links(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path, alone=False)
    temporary = temporaries.beside(path)
    temporary.mkdir()
    try:
        with disk_errors(path):
            yield temporary
            sync_folder(temporary)
            retired = None
            if path.exists():
                retired = temporaries.beside(path, "old")
                os.replace(path, retired)
            try:
                os.replace(temporary, path)
            finally:
                if retired is not None and not path.exists():
                    os.replace(retired, path)
            sync_folder(path.parent)
            if retired is not None:
                shutil.rmtree(retired)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
