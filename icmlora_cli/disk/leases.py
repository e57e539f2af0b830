"""Who works on what: a lease on a piece of work, kept alive by heart-beats and taken over when its holder dies.

A lease is filelock's: a marker file that its holder touches. On the holder's own machine a dead process loses it at
once; on another, once there has been no heart-beat for ``DURATION`` seconds of the waiting machine's own clock. A
holder that was merely stopped for so long finds its lease lost, and must not record what it made.
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
DURATION = 60.0  # seconds without a heart-beat after which another machine takes over; the same for all workers


@dataclass(frozen=True)
class Worker:
    """Who holds a lease.

    Args:
        host: its machine's name.
        pid: its process there.
        age: seconds since its last heart-beat, by this machine's clock.
    """

    host: str
    pid: int
    age: float


class Lease:
    """The lease of the work in a folder.

    Keep the same object while waiting for it: the time without a heart-beat of another machine counts from when this
    object first looked.

    Args:
        folder: where the work is; made when the lease is first asked for.
    """

    def __init__(self, folder: Path) -> None:
        """Name the lease's marker; nothing is taken yet."""
        self.folder = folder
        self._lock = _lock(folder)

    @property
    def lost(self) -> bool:
        """Whether another worker has taken it over since it was held, or its marker is gone; read from the disk."""
        return self._lock.compromise is not None or not self._lock.is_lock_held_by_us

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Hold the lease within the body, which is told whether it is held, or another worker has it.

        Raises:
            OutOfSpaceError: if the disk is full.
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
    """Return who works in a folder; None where nobody does, or nobody has said so for ``DURATION`` seconds.

    Of a process of this very machine, the system knows whether it lives.
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
    dead = host == platform.node() and not psutil.pid_exists(owner.pid)
    return None if dead else Worker(host, owner.pid, age)


def is_marker(name: str) -> bool:
    """Tell whether a file's name is that of a lease's marker, or of one that is being taken over."""
    return name == MARKER or name.startswith(f"{MARKER}.")


def _lock(folder: Path) -> SoftFileLease:
    return SoftFileLease(folder / MARKER, lease_duration=DURATION, thread_local=False)
