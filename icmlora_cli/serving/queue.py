"""A bounded queue of requests before one worker, from which a request can step out at any time."""

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
STOPPING = "the server is going down"


@dataclass(eq=False)
class QueuedJob(Generic[T]):
    """A place in the queue, and the work that is to be done there.

    Args:
        report: Called in the worker's thread with whatever comes of the work, an error too.
        work: What is to be done; None while the request is still being read.
        cancelled: Set once nobody waits for the job any more.
    """

    report: Callable[[object], None]
    work: T | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


class RequestQueue(Generic[T]):
    """Jobs that one thread does one after another, in the order in which they were submitted.

    A job takes up room from the moment at which its place is reserved, so that requests count while they are read.

    Args:
        do: Does a job's work; what it raises is reported to the job.
        room: How many jobs may be read or wait beside the one that is being done.
    """

    def __init__(self, do: Callable[[QueuedJob[T], T], None], room: int) -> None:
        """Start the thread that does the jobs."""
        self._do, self._room = do, room
        self._changed = threading.Condition()
        self._reading: set[QueuedJob[T]] = set()
        self._waiting: deque[QueuedJob[T]] = deque()
        self._running: QueuedJob[T] | None = None
        self._closed = False
        self._seconds = 1.0  # that the last job took
        self._thread = threading.Thread(target=self._run, name="icmlora-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs are being read or wait."""
        return len(self._reading) + len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether a job is being done."""
        return self._running is not None

    def reserve(self, report: Callable[[object], None]) -> QueuedJob[T]:
        """Return a place in the queue for a request that is still to be read.

        Args:
            report: Called in the worker's thread with whatever comes of the work.

        Raises:
            BusyError: If there is no room.
            StoppedError: If the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise StoppedError(STOPPING)
            ahead = self.waiting + self.running
            if ahead > self._room:
                seconds = min(LONGEST_WAIT, max(1, math.ceil(self._seconds * ahead)))
                raise BusyError(f"{ahead} requests are under way or waiting, and no more are taken in", seconds)
            job = QueuedJob[T](report)
            self._reading.add(job)
            return job

    def submit(self, job: QueuedJob[T], work: T) -> None:
        """Put a job whose request has been read at the end of those that wait; a dropped one is passed over.

        Raises:
            StoppedError: If the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise StoppedError(STOPPING)
            if job in self._reading:
                self._reading.remove(job)
                job.work = work
                self._waiting.append(job)
                self._changed.notify_all()

    def drop(self, job: QueuedJob[T]) -> None:
        """Cancel a job: one that is read or waits makes room at once, one that is being done ends at its next token."""
        job.cancelled.set()
        with self._changed:
            self._reading.discard(job)
            if job in self._waiting:
                self._waiting.remove(job)

    def stop(self) -> None:
        """Take no more jobs, and cancel those that wait and the one that is being done."""
        with self._changed:
            self._closed = True
            given_up = list(self._waiting)
            self._waiting.clear()
            for job in (*given_up, *([self._running] if self._running else [])):
                job.cancelled.set()
            self._changed.notify_all()
        for job in given_up:
            job.report(StoppedError(STOPPING))

    def close(self) -> None:
        """Stop, and return once the worker has ended."""
        self.stop()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            started = time.monotonic()
            try:
                assert job.work is not None
                self._do(job, job.work)
            except Exception as error:  # one request's failure is reported to it, and the next one is answered
                job.report(error)
            with self._changed:
                self._running, self._seconds = None, time.monotonic() - started

    def _next(self) -> QueuedJob[T] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._running = self._waiting.popleft()
            return self._running
