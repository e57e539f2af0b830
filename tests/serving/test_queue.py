"""The line of requests: in order, bounded, stepped out of at any time, closed without anybody left waiting."""

import threading
import time
from collections.abc import Callable

import pytest

from icmlora_cli.errors import BusyError, StoppedError
from icmlora_cli.serving.queue import QueuedJob, RequestQueue

SECONDS = 60.0


class Desk:
    """A line whose worker waits until it is let go on; it keeps what it has done, and what the jobs were told."""

    def __init__(self, room: int) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.done: list[str] = []
        self.told: dict[str, object] = {}
        self.line: RequestQueue[str] = RequestQueue(self._do, room)

    def _do(self, job: QueuedJob[str]) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=SECONDS)
        if job.work == "fail":
            raise ZeroDivisionError
        self.done.append("cancelled" if job.cancelled.is_set() else job.work)

    def put(self, work: str) -> QueuedJob[str]:
        job = QueuedJob(work, self._teller(work))
        self.line.put(job)
        return job

    def _teller(self, work: str) -> Callable[[object], None]:
        return lambda event: self.told.__setitem__(work, event)


def test_jobs_are_done_in_their_order_and_a_failure_is_told() -> None:
    desk = Desk(3)
    for work in ("a", "fail", "b", "c"):
        desk.put(work)
    for _ in range(4):
        desk.go.release()
        assert desk.begun.acquire(timeout=SECONDS)
    while len(desk.done) < 3:
        time.sleep(0.01)
    desk.line.close()
    assert desk.done == ["a", "b", "c"] and isinstance(desk.told["fail"], ZeroDivisionError)


def test_a_full_line_says_when_to_come_again() -> None:
    desk = Desk(1)
    running = desk.put("running")
    assert desk.begun.acquire(timeout=SECONDS)
    waiting = desk.put("waiting")
    with pytest.raises(BusyError) as full:
        desk.put("one too many")
    assert full.value.retry_after >= 1 and desk.line.waiting == 1 and desk.line.running
    desk.line.drop(waiting)
    assert desk.line.waiting == 0
    desk.put("in its place")
    desk.line.drop(running)
    desk.line.drop(running)  # twice is no harm
    desk.go.release(2)
    assert desk.begun.acquire(timeout=SECONDS)
    while len(desk.done) < 2:
        time.sleep(0.01)
    desk.line.close()
    assert desk.done == ["cancelled", "in its place"]


def test_no_room_still_serves_one() -> None:
    desk = Desk(0)
    desk.put("running")
    with pytest.raises(BusyError):
        desk.put("next")
    desk.go.release()
    desk.line.close()


def test_closing_tells_those_who_wait() -> None:
    desk = Desk(5)
    running = desk.put("running")
    assert desk.begun.acquire(timeout=SECONDS)
    desk.put("waiting")
    desk.line.stop()
    assert running.cancelled.is_set() and isinstance(desk.told["waiting"], StoppedError)
    with pytest.raises(StoppedError):
        desk.put("late")
    desk.go.release()
    desk.line.close()
    assert desk.done == ["cancelled"]
