"""``icmlora report``: builds beside the result, replaces only its own pages, opens what is up to date."""

import json
import os
import runpy
import webbrowser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from icmlora_cli.cli.app import app
from icmlora_cli.report.html import MARK
from icmlora_cli.report.result import write_result

samples = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "report" / "samples.py")))


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    assert result.exit_code == code, result.output
    return result.stdout


def told(*arguments: object, code: int = 0) -> dict[str, Any]:
    value = json.loads(call(*arguments, "--json", code=code))
    assert isinstance(value, dict)
    return value


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A result's folder."""
    folder = tmp_path / "a run"
    folder.mkdir()
    write_result(folder, samples.bare_bones())
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open."""
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: asked.append(address) or True)
    return asked


def test_build_writes_beside_the_result(run: Path) -> None:
    page = run / "report.html"
    assert told("build", run) == {
        "schema": "icmlora.report.build/2",
        "report": str(page),
        "bytes": page.stat().st_size,
        "tasks": 6,
        "methods": 3,
    }
    assert MARK in page.read_text(encoding="utf-8")
    assert call("build", run / "result.json", "--quiet") == f"{page}\n"  # the file does as well; its own is replaced


def test_build_writes_elsewhere_and_makes_the_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told("build", run, "-o", "pages/first.html")["report"] == str(tmp_path / "pages" / "first.html")
    assert not (run / "report.html").exists()


def test_another_file_is_replaced_only_by_force(run: Path) -> None:
    page = run / "report.html"
    page.write_text("my own notes")
    assert told("build", run, code=1)["error"]["kind"] == "AlreadyExistsError"
    assert told("open", run, "--no-browser", code=1)["error"]["kind"] == "AlreadyExistsError"
    assert page.read_text() == "my own notes"
    told("build", run, "--force")
    assert MARK in page.read_text(encoding="utf-8")


def test_a_folder_is_no_page(run: Path, tmp_path: Path) -> None:
    assert told("build", run, "-o", tmp_path, code=2)["error"]["kind"] == "UsageError"


@pytest.mark.parametrize("command", ["build", "open"])
def test_bad_results_are_told(run: Path, tmp_path: Path, opened: list[str], command: str) -> None:
    assert told(command, tmp_path, code=1)["error"]["kind"] == "NotFoundError"
    assert told(command, tmp_path / "nowhere", code=1)["error"]["kind"] == "NotFoundError"
    for text in ("{", "[]", '{"schema": "icmlora.result/99"}', '{"schema": "icmlora.result/1"}'):
        (run / "result.json").write_text(text)
        assert told(command, run, code=1)["error"]["kind"] == "CorruptFileError"
    assert not (run / "report.html").exists() and opened == []


def test_open_makes_what_is_missing_or_old(run: Path, opened: list[str]) -> None:
    page = run / "report.html"
    first = told("open", run)
    assert first == {"schema": "icmlora.report.open/1", "report": str(page), "built": True, "opened": True}
    assert opened == [page.as_uri()] and "a%20run" in opened[0]
    assert told("open", run)["built"] is False
    later = page.stat().st_mtime + 5
    os.utime(run / "result.json", (later, later))
    assert told("open", run)["built"] is True
    assert len(opened) == 3


def test_open_without_a_browser(run: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("open", run, "--no-browser") == f"{run / 'report.html'}\n"
    assert told("open", run, "--no-browser")["opened"] is False and opened == []
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert told("open", run)["opened"] is False
