"""Names of temporary files and folders.

Each name says which process made it, so that what a killed process left can be told from what is being written.
"""

import functools
import hashlib
import os
import platform
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PREFIX = ".tmp-"
FOREIGN_SECONDS = 86_400.0  # what another machine made counts as left over once it is unchanged for that long
UNSIGNED_SECONDS = 600.0  # a name without a process counts as left over once it is unchanged for that long
CLOCK_SECONDS = 2.0  # the times of a file and of a process may differ by that much

Role = Literal["new", "old", "gone"]

_NAME = re.compile(
    r"\.tmp-(?P<place>[0-9a-f]{8})\.(?P<pid>\d{1,10})\.[0-9a-f]{12}-(?P<role>new|old|gone)-(?P<name>.+)", re.DOTALL
)
_UNSIGNED = re.compile(r"\.tmp-[0-9a-f]+-(?P<old>old-)?(?P<name>.+)", re.DOTALL)  # what early versions wrote


@dataclass(frozen=True)
class Temporary:
    """What a temporary name says, as ``parse`` returns it.

    Args:
        role: ``new`` will become ``name``; ``old`` was ``name`` and is being replaced; ``gone`` is being deleted.
        name: the name that the file or folder will have, or had.
        place: an identifier of the machine or container whose process made it; None where the name has none.
        pid: the number of the process that made it; None where the name has none.
    """

    role: Role
    name: str
    place: str | None = None
    pid: int | None = None


def beside(path: Path, role: Role = "new") -> Path:
    """Return a new temporary path in the folder of ``path``; its name says that this process made it.

    Args:
        path: what the temporary file or folder will become, or was.
        role: what it is for; see ``Temporary``.
    """
    return path.with_name(f"{PREFIX}{_place()}.{os.getpid()}.{uuid.uuid4().hex[:12]}-{role}-{path.name}")


def parse(name: str) -> Temporary | None:
    """Return what a file's name says, or None if it is no temporary name."""
    if match := _NAME.fullmatch(name):
        role: Role = "new" if match["role"] == "new" else "old" if match["role"] == "old" else "gone"
        return Temporary(role, match["name"], match["place"], int(match["pid"]))
    if match := _UNSIGNED.fullmatch(name):
        return Temporary("old" if match["old"] else "new", match["name"])
    return Temporary("new", name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def set_aside(path: Path) -> bool:
    """Tell whether ``path`` is missing because a replacement of it was killed between two renames."""
    if os.path.lexists(path) or not path.parent.is_dir():
        return False
    names = (parse(item.name) for item in path.parent.iterdir())
    return any(parsed is not None and (parsed.role, parsed.name) == ("old", path.name) for parsed in names)


def within(path: Path, root: Path) -> bool:
    """Tell whether a path is temporary, or lies in a temporary folder below ``root``."""
    return PREFIX in str(path) and any(part.startswith(PREFIX) for part in path.relative_to(root).parts)


@functools.cache
def _place() -> str:
    """Return an identifier of this machine or container; a process number means something only within one."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the link leads to no file
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def in_use(path: Path) -> bool:
    """Tell whether a running process may still be at work on a temporary file or folder.

    The system knows which processes of this machine run. For a name of another machine, or without a process, the time
    of the last change decides.
    """
    parsed = parse(path.name)
    if parsed is None or parsed.pid is None:
        return time.time() - _changed(path, deep=True) < UNSIGNED_SECONDS
    if parsed.place != _place():
        return time.time() - _changed(path, deep=True) < FOREIGN_SECONDS
    return parsed.pid == os.getpid() or _runs(parsed.pid, since=_changed(path))


def _runs(pid: int, *, since: float) -> bool:
    """Tell whether the process still runs that had this number at the time ``since``, in seconds of the epoch.

    A process that started later has only taken over the number.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + CLOCK_SECONDS)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _changed(path: Path, *, deep: bool = False) -> float:
    """Return when a path was last changed or renamed, in seconds of the epoch; 0 if it does not exist.

    Args:
        path: a file or folder.
        deep: whether changes of anything below the folder count too.
    """
    latest = 0.0
    for item in (path, *(path.rglob("*") if deep and path.is_dir() else ())):
        try:
            stat = item.lstat()
        except FileNotFoundError:
            continue
        latest = max(latest, stat.st_mtime, stat.st_ctime)  # a rename changes only the ctime
    return latest
