"""The queue of requests: in order, bounded, stepped out of at any time, closed without anybody left waiting."""

import threading
import time
from collections.abc import Callable

import pytest

from icmlora_cli.errors import BusyError, StoppedError
from icmlora_cli.serving.queue import QueuedJob, RequestQueue

SECONDS = 60.0


class Desk:
    """A queue whose worker waits until it is let go on; it keeps what it did and what was reported to the jobs."""

    def __init__(self, room: int) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.done: list[str] = []
        self.reported: dict[str, object] = {}
        self.queue: RequestQueue[str] = RequestQueue(self._do, room)

    def _do(self, job: QueuedJob[str], work: str) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=SECONDS)
        if work == "fail":
            raise ZeroDivisionError
        self.done.append("cancelled" if job.cancelled.is_set() else work)

    def put(self, work: str) -> QueuedJob[str]:
        job = self.reserve(work)
        self.queue.submit(job, work)
        return job

    def reserve(self, work: str) -> QueuedJob[str]:
        return self.queue.reserve(self._reporter(work))

    def _reporter(self, work: str) -> Callable[[object], None]:
        return lambda event: self.reported.__setitem__(work, event)


def test_jobs_are_done_in_their_order_and_a_failure_is_told() -> None:
    desk = Desk(3)
    for work in ("a", "fail", "b", "c"):
        desk.put(work)
    for _ in range(4):
        desk.go.release()
        assert desk.begun.acquire(timeout=SECONDS)
    while len(desk.done) < 3:
        time.sleep(0.01)
    desk.queue.close()
    assert desk.done == ["a", "b", "c"] and isinstance(desk.reported["fail"], ZeroDivisionError)


def test_a_full_queue_says_when_to_come_again() -> None:
    desk = Desk(1)
    running = desk.put("running")
    assert desk.begun.acquire(timeout=SECONDS)
    waiting = desk.put("waiting")
    with pytest.raises(BusyError) as full:
        desk.put("one too many")
    assert full.value.retry_after >= 1 and desk.queue.waiting == 1 and desk.queue.running
    desk.queue.drop(waiting)
    assert desk.queue.waiting == 0
    desk.put("in its place")
    desk.queue.drop(running)
    desk.queue.drop(running)  # twice is no harm
    desk.go.release(2)
    assert desk.begun.acquire(timeout=SECONDS)
    while len(desk.done) < 2:
        time.sleep(0.01)
    desk.queue.close()
    assert desk.done == ["cancelled", "in its place"]


def test_no_room_still_serves_one() -> None:
    desk = Desk(0)
    desk.put("running")
    with pytest.raises(BusyError):
        desk.put("next")
    desk.go.release()
    desk.queue.close()


def test_closing_tells_those_who_wait() -> None:
    desk = Desk(5)
    running = desk.put("running")
    assert desk.begun.acquire(timeout=SECONDS)
    desk.put("waiting")
    desk.queue.stop()
    assert running.cancelled.is_set() and isinstance(desk.reported["waiting"], StoppedError)
    with pytest.raises(StoppedError):
        desk.put("late")
    desk.go.release()
    desk.queue.close()
    assert desk.done == ["cancelled"]


def test_a_request_counts_while_it_is_read() -> None:
    desk = Desk(1)
    first, second = desk.reserve("first"), desk.reserve("second")
    assert desk.queue.waiting == 2 and not desk.queue.running
    with pytest.raises(BusyError):
        desk.reserve("one too many")
    desk.queue.drop(first)
    desk.queue.submit(first, "first")  # its client hung up while it was read: it is passed over
    third = desk.put("third")
    desk.queue.submit(second, "second")
    desk.go.release(2)
    while len(desk.done) < 2:
        time.sleep(0.01)
    assert desk.done == ["third", "second"] and not third.cancelled.is_set()
    late = desk.reserve("late")
    desk.queue.stop()
    with pytest.raises(StoppedError):
        desk.queue.submit(late, "late")
    desk.queue.close()
