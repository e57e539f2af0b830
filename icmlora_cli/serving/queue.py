"""A bounded line of jobs before one worker, from which a job can step out at any time."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from icmlora_cli.errors import BusyError, StoppedError

T = TypeVar("T")
LONGEST_WAIT = 60  # seconds that a client is told to wait, at most


@dataclass(eq=False)
class QueuedJob(Generic[T]):
    """A piece of work in the line.

    Args:
        work: what is asked for.
        tell: called in the worker's thread with whatever comes of it, an error too.
        cancelled: set once nobody waits for it any more.
    """

    work: T
    tell: Callable[[object], None]
    cancelled: threading.Event = field(default_factory=threading.Event)


class RequestQueue(Generic[T]):
    """Jobs, done one after another in a thread of their own, in the order in which they came.

    Args:
        do: does a job; what it raises is told to the job.
        room: how many jobs may wait beside the one that is being done.
    """

    def __init__(self, do: Callable[[QueuedJob[T]], None], room: int) -> None:
        """Start the thread that does the jobs."""
        self._do, self._room = do, room
        self._changed = threading.Condition()
        self._waiting: deque[QueuedJob[T]] = deque()
        self._running: QueuedJob[T] | None = None
        self._closed = False
        self._seconds = 1.0  # that the last job took
        self._thread = threading.Thread(target=self._run, name="icmlora-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether a job is being done."""
        return self._running is not None

    def put(self, job: QueuedJob[T]) -> None:
        """Put a job at the end.

        Raises:
            Busy: if there is no room.
            Stopped: if the line is closed.
        """
        with self._changed:
            if self._closed:
                raise StoppedError("the server is going down")
            ahead = len(self._waiting) + self.running
            if ahead > self._room:
                seconds = min(LONGEST_WAIT, max(1, math.ceil(self._seconds * ahead)))
                raise BusyError(f"{ahead} requests are under way or waiting, and no more are taken in", seconds)
            self._waiting.append(job)
            self._changed.notify_all()

    def drop(self, job: QueuedJob[T]) -> None:
        """Cancel a job: one that waits makes room at once, one that is being done ends at its next token."""
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._changed.notify_all()

    def stop(self) -> None:
        """Take no more jobs, and cancel those that wait and the one that is being done."""
        with self._changed:
            self._closed = True
            gone = list(self._waiting)
            self._waiting.clear()
            for job in (*gone, *([self._running] if self._running else [])):
                job.cancelled.set()
            self._changed.notify_all()
        for job in gone:
            job.tell(StoppedError("the server is going down"))

    def close(self) -> None:
        """Stop, and return once the worker has ended."""
        self.stop()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            started = time.monotonic()
            try:
                self._do(job)
            except Exception as error:  # one request's failure is told to it, and the next one is answered
                job.tell(error)
            with self._changed:
                self._running, self._seconds = None, time.monotonic() - started

    def _next(self) -> QueuedJob[T] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._running = self._waiting.popleft()
            return self._running
