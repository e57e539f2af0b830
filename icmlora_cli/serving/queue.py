"""A bounded queue of requests for one worker thread, from which a request can be taken back at any time."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from icmlora_cli.errors import BusyError, StoppedError

T = TypeVar("T")
LONGEST_WAIT = 60  # the most seconds after which a refused client is asked to come again
STOPPING = "the server is going down"


@dataclass(eq=False)
class QueuedJob(Generic[T]):
    """A place in the queue, with the work that is to be done when its turn comes.

    Args:
        report: Called in the worker's thread with each result of the work, and with an error if it fails.
        work: The request that is to be answered; None while it is still being read.
        cancelled: An event that is set once nobody waits for the result any more.
    """

    report: Callable[[object], None]
    work: T | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


class RequestQueue(Generic[T]):
    """A queue of jobs that one thread does one after another, in the order in which they were submitted.

    A job takes up room from when its place is reserved, so that requests count while they are still being read.

    Args:
        do: Does the work of a job; the exceptions that it raises are reported to that job.
        room: How many jobs may be read or wait, besides the one that is being done.
    """

    def __init__(self, do: Callable[[QueuedJob[T], T], None], room: int) -> None:
        """Start the thread that does the jobs."""
        self._do, self._room = do, room
        self._changed = threading.Condition()
        self._reading: set[QueuedJob[T]] = set()
        self._waiting: deque[QueuedJob[T]] = deque()
        self._running: QueuedJob[T] | None = None
        self._closed = False
        self._seconds = 1.0  # how long the last job took
        self._thread = threading.Thread(target=self._run, name="icmlora-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of jobs that are being read or wait."""
        return len(self._reading) + len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether a job is being done."""
        return self._running is not None

    def reserve(self, report: Callable[[object], None]) -> QueuedJob[T]:
        """Return a place in the queue for a request that is still to be read.

        Args:
            report: Called in the worker's thread with each result of the work, and with an error if it fails.

        Raises:
            BusyError: If there is no room in the queue.
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
        """Put a job, whose request has now been read, at the end of the queue; do nothing if it was dropped meanwhile.

        Args:
            job: The place that ``reserve`` returned.
            work: The request that is to be answered.

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
        """Cancel a job. One that is being read or waits leaves the queue at once; one that is being done ends soon."""
        job.cancelled.set()
        with self._changed:
            self._reading.discard(job)
            if job in self._waiting:
                self._waiting.remove(job)

    def stop(self) -> None:
        """Take no more jobs, and cancel those that wait and the one that is being done."""
        with self._changed:
            self._closed = True
            cancelled = list(self._waiting)
            self._waiting.clear()
            for job in (*cancelled, *([self._running] if self._running else [])):
                job.cancelled.set()
            self._changed.notify_all()
        for job in cancelled:
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
            except Exception as error:  # a request that fails must not keep the next ones from their answers
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
