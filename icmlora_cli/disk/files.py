"""Reading and writing files so that no reader ever sees half a file.

Everything is written under a temporary name, brought to the disk (fsync), and moved into place (``os.replace``).
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any, TypeGuard

from icmlora_cli.disk import temporary as temporaries
from icmlora_cli.errors import CorruptFileError, OutOfSpaceError

# the system's error numbers for a full disk, a full quota, and a file over the limit on sizes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = temporaries.PREFIX


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's and libraries' errors for a full disk within the body into one clear error.

    Args:
        path: the file or folder that is being written, for the message.

    Raises:
        OutOfSpaceError: If the disk or the quota is full, or the file exceeds the limit on sizes.
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
    """Return the system's error number, or 0; libraries written in Rust, such as safetensors, have it in their text."""
    if isinstance(error, OSError):
        return error.errno or 0
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else 0


def behind_links(path: Path) -> Path:
    """Return the target of a symbolic link, or the path itself.

    A write to the result changes what the link leads to, as ``cp`` does, and leaves the link in place.
    """
    return path.resolve() if path.is_symlink() else path


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk (fsync)."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_others_make(path: Path) -> None:
    """Give a file the mode that the umask asks for, since safetensors makes files that only their owner can read."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make the file in a temporary folder beside ``path``, then move it into place.

    Libraries such as safetensors make temporary files of their own beside what they write, under names that do not
    say whose they are. Here they are in the temporary folder, which is deleted even if the process was killed.

    Args:
        path: the file to write.
        write: writes the file under the path that it is given.

    Raises:
        OutOfSpaceError: If the disk is full; ``path`` is then what it was before.
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


def write_all(folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
    """Write files into a folder that nobody reads yet, as in ``new_folder``, and bring them to the disk together.

    Args:
        folder: the folder, which is made.
        contents: the name and the bytes of each file.

    Raises:
        OutOfSpaceError: If the disk is full.
    """
    folder.mkdir(parents=True)
    with disk_errors(folder):
        for name, data in contents:
            (folder / name).write_bytes(data)
        sync_tree(folder)


def _into_place(temporary: Path, path: Path) -> None:
    """Bring a file's bytes to the disk, then give it its name."""
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
    """Return the bytes that ``write_json`` writes: UTF-8, with an indent of two spaces."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: If there is no such file.
        CorruptFileError: If it is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path.name} is not valid JSON: {error}", where=str(path)) from error
    if not is_object(value):
        raise CorruptFileError(f"{path.name} does not hold a JSON object", where=str(path))
    return value


def as_object(value: object) -> dict[str, Any]:
    """Return a JSON value of another program as an object; an empty one where it is something else."""
    return value if is_object(value) else {}


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether a value of JSON or YAML, which others wrote and may be anything, is an object."""
    return isinstance(value, dict)


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """Return the hex SHA-256 of a value's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk (fsync)."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def sync_tree(folder: Path) -> None:
    """Bring a folder and everything in it to the disk (fsync)."""
    from concurrent.futures import ThreadPoolExecutor  # 9 ms, which most commands do not need

    def sync(path: Path) -> None:
        sync_folder(path) if path.is_dir() else sync_file(path)

    with ThreadPoolExecutor(8) as threads:  # a file system brings to the disk together what waits at one time
        list(threads.map(sync, (folder, *folder.rglob("*"))))


def delete_folder(folder: Path) -> None:
    """Delete a folder so that it is never seen half deleted: it is renamed to a temporary name first."""
    gone = temporaries.beside(folder, "gone")
    os.replace(folder, gone)
    if gone.is_symlink():  # only the link is deleted, not what it leads to
        gone.unlink()
    else:
        shutil.rmtree(gone)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder``, sorted, without hidden and temporary ones; none where it does not exist."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_dir() and not path.name.startswith(".")]


def finished_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files below a folder whose names end with ``suffix``, sorted.

    Temporary files, and files in temporary folders, are left out, since a running process may be writing them.
    """
    paths = []
    for parent, folders, names in os.walk(folder):  # unlike Path.rglob, it ignores folders that vanish meanwhile
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        paths += [Path(parent, name) for name in names if name.endswith(suffix) and not name.startswith(TEMPORARY)]
    return sorted(paths)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``, but of what vanishes meanwhile; 0 where it does not exist."""
    total, waiting = 0, [os.fspath(folder)] if folder.is_dir() else []
    while waiting:
        # os.scandir, since a registry has thousands of folders and Path.rglob is slow
        with suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    total += entry.stat().st_size
    return total


def freed_bytes(*paths: Path) -> int:
    """Return the bytes that deleting files and folders gives back.

    A file that has a hard link outside of these paths stays on the disk, and counts nothing. A file with several hard
    links within them counts once.
    """
    sizes_and_links: dict[tuple[int, int], list[int]] = {}  # by device and inode: bytes, links outside of the paths
    for path in paths:
        for item in (path, *(path.rglob("*") if path.is_dir() else ())):
            stat = item.lstat()
            if not S_ISDIR(stat.st_mode):
                sizes_and_links.setdefault((stat.st_dev, stat.st_ino), [stat.st_size, stat.st_nlink])[1] -= 1
    return sum(size for size, elsewhere in sizes_and_links.values() if elsewhere <= 0)


def sweep(path: Path, *, alone: bool) -> None:
    """Delete what killed writers of ``path`` left beside it, and restore what one of them was about to replace.

    Args:
        path: a file or folder, which need not exist.
        alone: whether no other process can be writing ``path`` now, so that everything temporary beside it is left
            over; if not, only what no running process made is deleted.
    """
    for leftover in path.parent.glob(f"{TEMPORARY}*"):
        parsed = temporaries.parse(leftover.name)
        if parsed is not None and parsed.name == path.name and (alone or not temporaries.in_use(leftover)):
            _clear(leftover, parsed)


def sweep_folder(folder: Path) -> None:
    """Delete what killed processes left in a folder, whatever they wrote there, and restore what they were replacing.

    A temporary name that does not say which process made it may be another program's, and is left alone.
    """
    for leftover in folder.glob(f"{TEMPORARY}*"):
        parsed = temporaries.parse(leftover.name)
        if parsed is not None and parsed.pid is not None and not temporaries.in_use(leftover):
            _clear(leftover, parsed)


def _clear(leftover: Path, parsed: temporaries.Temporary) -> None:
    """Delete a leftover, or give it its name again where it was being replaced and nothing has that name."""
    path = leftover.with_name(parsed.name)
    if parsed.role == "old" and not path.exists():
        os.replace(leftover, path)
    elif leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` when the body ends without an exception.

    An existing ``path`` is replaced then, and only then; if it is a link, its target is. What killed processes left
    of earlier attempts is deleted first.

    Args:
        path: the folder to write, which may exist.

    Raises:
        OutOfSpaceError: If the disk is full.
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
