"""Names of temporary files and folders. They say whose they are, so that what a killed process left can be told."""

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
FOREIGN_SECONDS = 86_400.0  # untouched for that long, what another machine made counts as left over
UNSIGNED_SECONDS = 600.0  # the same for a name that does not say whose it is
CLOCK_SECONDS = 2.0  # by which a file's time and a process's may disagree

Role = Literal["new", "old", "gone"]

_NAME = re.compile(
    r"\.tmp-(?P<place>[0-9a-f]{8})\.(?P<pid>\d{1,10})\.[0-9a-f]{12}-(?P<role>new|old|gone)-(?P<name>.+)", re.DOTALL
)
_UNSIGNED = re.compile(r"\.tmp-[0-9a-f]+-(?P<old>old-)?(?P<name>.+)", re.DOTALL)  # what icmlora wrote at first


@dataclass(frozen=True)
class Temporary:
    """What a temporary name says.

    Args:
        role: ``new``: on its way to be ``name``; ``old``: was ``name``, is being replaced; ``gone``: is being deleted.
        name: what it becomes, or was.
        place: of the machine (and its process numbers); None where it does not say.
        pid: of the process that made it; None where it does not say.
    """

    role: Role
    name: str
    place: str | None = None
    pid: int | None = None


def beside(path: Path, role: Role = "new") -> Path:
    """Return a temporary path in the folder of ``path``, signed by this process."""
    return path.with_name(f"{PREFIX}{_place()}.{os.getpid()}.{uuid.uuid4().hex[:12]}-{role}-{path.name}")


def parse(name: str) -> Temporary | None:
    """Return what a file's name says, or None if it is no temporary name."""
    if found := _NAME.fullmatch(name):
        role: Role = "new" if found["role"] == "new" else "old" if found["role"] == "old" else "gone"
        return Temporary(role, found["name"], found["place"], int(found["pid"]))
    if found := _UNSIGNED.fullmatch(name):
        return Temporary("old" if found["old"] else "new", found["name"])
    return Temporary("new", name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def set_aside(path: Path) -> bool:
    """Tell whether ``path`` is missing because a replacement of it was killed between two renames."""
    if os.path.lexists(path) or not path.parent.is_dir():
        return False
    names = (parse(item.name) for item in path.parent.iterdir())
    return any(said is not None and (said.role, said.name) == ("old", path.name) for said in names)


def within(path: Path, root: Path) -> bool:
    """Tell whether a path is temporary, or lies in a temporary folder below ``root``."""
    return PREFIX in str(path) and any(part.startswith(PREFIX) for part in path.relative_to(root).parts)


@functools.cache
def _place() -> str:
    """Return what tells apart machines, and containers on one: a process number means something only within it."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a link to no file
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def in_use(path: Path) -> bool:
    """Tell whether a running process may still be at work on a temporary file or folder.

    The system is asked where it can know. Of another machine's, or of a name that says nothing, only the time of the
    last change is known.
    """
    said = parse(path.name)
    if said is None or said.pid is None:
        return time.time() - _changed(path, deep=True) < UNSIGNED_SECONDS
    if said.place != _place():
        return time.time() - _changed(path, deep=True) < FOREIGN_SECONDS
    return said.pid == os.getpid() or _runs(said.pid, since=_changed(path))


def _runs(pid: int, *, since: float) -> bool:
    """Tell whether the process that changed something at ``since`` still runs; a later one may have its number."""
    import psutil

    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + CLOCK_SECONDS)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _changed(path: Path, *, deep: bool = False) -> float:
    """Return when a path (with ``deep``, or anything below it) was last changed or renamed; 0 if it is not there."""
    latest = 0.0
    for item in (path, *(path.rglob("*") if deep and path.is_dir() else ())):
        try:
            found = item.lstat()
        except FileNotFoundError:
            continue
        latest = max(latest, found.st_mtime, found.st_ctime)  # only ctime is that of a rename
    return latest
