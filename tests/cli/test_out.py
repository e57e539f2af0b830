"""What the one place that prints does with a large table."""

import pytest

from icmlora_cli.cli import out as module
from icmlora_cli.cli.out import Out

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
