"""Leases: markers that say which process works on what, kept alive by heart-beats and taken over when it dies.

A lease is one of the library filelock: a marker file that its holder touches. Waiting processes on the holder's machine
take it over as soon as the holder is dead; those on another machine do so once there has been no heart-beat for
``DURATION`` seconds of their own clock. A holder that was only stopped for so long finds its lease lost, and must not
record its result.
"""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import SoftFileLease, Timeout

from icmlora_cli.disk import files

MARKER = "lease"
DURATION = 60.0  # seconds without a heart-beat after which another machine takes over; all workers need the same value


@dataclass(frozen=True)
class Worker:
    """The process that holds a lease.

    Args:
        host: the name of its machine.
        pid: its process number on that machine.
        age: the seconds since its last heart-beat, by this machine's clock.
    """

    host: str
    pid: int
    age: float


class Lease:
    """The lease of the work in a folder.

    A process that waits for a lease must keep the same object, which measures the time without a heart-beat from when
    it first looked at the marker.

    Args:
        folder: the folder of the work; it is made when the lease is first asked for.
    """

    def __init__(self, folder: Path) -> None:
        """Name the lease's marker; nothing is taken yet."""
        self.folder = folder
        self._lock = _lock(folder)

    @property
    def lost(self) -> bool:
        """Whether another worker has taken the lease over, or its marker is gone; read from the disk each time."""
        return self._lock.compromise is not None or not self._lock.is_lock_held_by_us

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Try to take the lease, and hold it within the body.

        Yields:
            True if the lease is held; False if another worker holds it.

        Raises:
            OutOfSpaceError: If the disk is full.
        """
        try:
            with files.disk_errors(self.folder / MARKER):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            self._lock.release()


def worker(folder: Path) -> Worker | None:
    """Return the process that works in a folder; None where none does, or its last heart-beat is too old.

    A heart-beat is too old after ``DURATION`` seconds. A process of this machine must also be alive.
    """
    import psutil

    marker = folder / MARKER
    try:
        owner, touched = _lock(folder).owner, marker.stat().st_mtime
    except OSError:
        return None
    age = max(0.0, time.time() - touched)
    if owner is None or age > DURATION:
        return None
    host = owner.hostname.split("?")[0]
    is_dead = host == platform.node() and not psutil.pid_exists(owner.pid)
    return None if is_dead else Worker(host, owner.pid, age)


def is_marker(name: str) -> bool:
    """Tell whether a file's name is that of a lease's marker, or of a marker that is being taken over."""
    return name == MARKER or name.startswith(f"{MARKER}.")


def _lock(folder: Path) -> SoftFileLease:
    return SoftFileLease(folder / MARKER, lease_duration=DURATION, thread_local=False)
