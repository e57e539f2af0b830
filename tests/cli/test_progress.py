"""Progress as lines, where stderr is no terminal."""

import pytest

from icmlora_cli.cli import progress as shown
from icmlora_cli.cli.progress import progress_display
from icmlora_cli.workflows.progress import Progress


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(shown, "time", clock)
    return clock


def test_what_is_at_hand_is_said_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display(quiet=False) as show:
        for _ in range(3):
            show(Progress("download", "a wheel", 93_000_000, 93_000_000))
        show(Progress("download", "another", 1_000_000, 1_000_000))
    assert capsys.readouterr().err.splitlines() == ["download a wheel: 93/93 MB", "download another: 1/1 MB"]


def test_the_time_that_is_left_is_said(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display(quiet=False) as show:
        show(Progress("harvest", "a", 0, 10, "", 0, 4))
        clock.now += 60
        show(Progress("harvest", "a", 10, 10, "loss 0.1", 1, 4))
        clock.now += 20
        show(Progress("harvest", "b", 8, 10, "loss 0.2", 1, 4))
        show(Progress("harvest", "b", 10, 10, "", 2, 4))
        clock.now += 80
        show(Progress("harvest", "d", 10, 10, "", 4, 4))
    assert capsys.readouterr().err.splitlines() == [
        "[1/4] harvest a: 10/10 loss 0.1, 3 min left",
        "[2/4] harvest b: 10/10, 80 s left",
        "[4/4] harvest d: 10/10",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display(quiet=True) as show:
        show(Progress("train", "x", 1, 1))
    assert capsys.readouterr().err == ""
