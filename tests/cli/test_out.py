"""What the one place that prints does with a large table, and how it asks."""

import os
from collections.abc import Iterator

import pytest
import typer

from icmlora_cli.cli import out as module
from icmlora_cli.cli.out import Out
from icmlora_cli.errors import UsageError

HEADERS = ("name", "steps", "text")


def drawn(capsys: pytest.CaptureFixture[str], rows: list[tuple[str, str, str]], *, quiet: bool = False) -> list[str]:
    Out("x", as_json=False, quiet=quiet).table(HEADERS, rows, title="all of them", bars=[0.5] * len(rows))
    return capsys.readouterr().out.splitlines()


def test_a_large_table_is_plain_columns_with_every_cell_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"task_{index}", str(index), "漢字" if index % 2 else "long " * 60) for index in range(1001)]
    lines = drawn(capsys, rows)
    assert lines[0] == "all of them" and len(lines) == 3 + len(rows)
    assert lines[1].split() == list(HEADERS) and set(lines[2]) == {" ", "─"}
    assert lines[3] == f"  task_0         0  {'long ' * 60}".rstrip()
    assert lines[4] == "  task_1         1  漢字"
    assert lines[-1].startswith("  task_1000   1000  long")


def test_small_and_large_tables_hold_the_same_cells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"task_{index}", str(index), "a few words") for index in range(20)]
    small = [line.split() for line in drawn(capsys, rows) if line.strip()]
    monkeypatch.setattr(module, "LARGE_TABLE", 10)
    large = [line.split() for line in drawn(capsys, rows)]
    assert [line for line in small if "─" not in line[0]] == [line for line in large if "─" not in line[0]]


def test_quiet_is_tab_separated_at_any_size(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", "1", "b")] * 1001
    assert drawn(capsys, rows, quiet=True) == ["a\t1\tb"] * 1001


AGAIN = "icmlora base remove x --yes"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal as stdin; what is written to the descriptor is what a person types."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield ours
    os.close(ours)


def test_confirm_goes_on_with_yes(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    os.write(terminal, b"y\n")
    Out("base remove", as_json=False, quiet=False).confirm("Remove x\x1b[2J?", yes=False, again=AGAIN)
    streams = capsys.readouterr()
    assert "Remove x" in streams.err and "\x1b" not in streams.err and streams.out == ""


@pytest.mark.parametrize("answer", [b"n\n", b"\n"])
def test_confirm_stops_with_anything_else(terminal: int, answer: bytes) -> None:
    os.write(terminal, answer)
    with pytest.raises(typer.Abort):
        Out("base remove", as_json=False, quiet=False).confirm("Remove x?", yes=False, again=AGAIN)


def test_confirm_does_not_ask_with_json(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    os.write(terminal, b"y\n")
    with pytest.raises(UsageError) as error:
        Out("base remove", as_json=True, quiet=False).confirm("Remove x?", yes=False, again=AGAIN)
    assert error.value.exit_code == 2 and error.value.hint == AGAIN and capsys.readouterr().err == ""


@pytest.mark.parametrize("closed", [True, False])
def test_confirm_without_a_terminal(closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", None if closed else nothing)
        with pytest.raises(UsageError, match="nobody can be asked"):
            Out("base remove", as_json=False, quiet=False).confirm("Remove x?", yes=False, again=AGAIN)
        Out("base remove", as_json=True, quiet=False).confirm("Remove x?", yes=True, again=AGAIN)
