"""How ``--help`` looks: panels, first sentences that fit a line, texts as they are written, no colours in a file."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer.main
from rich.text import Text
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

import icmlora_cli
from icmlora_cli.cli.app import PANELS, app
from icmlora_cli.cli.help import escaped

IN_PANELS = {
    "gen": ("Examples", "What is written", "Where it runs"),
    "eval": ("What is compared", "Where it runs"),
    "harvest": ("Training", "Where it runs"),
    "serve": ("Network", "Limits", "Where it runs"),
    "finetune": ("Examples", "Training", "Where it runs"),
    "train": ("Training", "Where it runs"),
}
COLOURS = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR", "TERM"}
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-7]")
MANY = 10  # options that one panel may hold, and --help


def shown(*words: str, columns: int = 100) -> str:
    """Return what ``icmlora WORDS --help`` prints."""
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="icmlora", env={"COLUMNS": str(columns)})
    assert result.exit_code == 0 and result.stderr == ""
    return result.stdout


def process(**environment: str) -> dict[str, str]:
    """Return the environment of a process in which nothing asks for colours."""
    kept = {name: text for name, text in os.environ.items() if name not in COLOURS}
    return kept | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1]), "COLUMNS": "100"} | environment


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", False)  # which GITHUB_ACTIONS sets


def commands(
    command: TyperCommand | TyperGroup, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], TyperCommand | TyperGroup]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))  # type: ignore[arg-type]


def test_every_command_stands_in_its_panel_and_no_first_sentence_is_cut() -> None:
    lines = shown().splitlines()
    for panel, names in PANELS.items():
        start = next(index for index, line in enumerate(lines) if line.startswith(f"╭─ {panel} ─"))
        rows = lines[start + 1 : start + 1 + len(names)]
        assert [row.split()[1] for row in rows] == list(names)  # a row a command, in order
        assert lines[start + 1 + len(names)].startswith("╰")
        for name, row in zip(names, rows, strict=True):
            sentence = str(ALL[(name,)].help).split("\n\n")[0]
            assert sentence in row, name
    assert {name for names in PANELS.values() for name in names} == set(ALL[()].commands)  # type: ignore[union-attr]
    assert max(map(len, lines)) <= 100 and "..." not in "".join(lines[5:])


@pytest.mark.parametrize("group", sorted(path[0] for path in ALL if len(path) == 2 and path[-1]))
def test_no_first_sentence_of_a_group_is_cut(group: str) -> None:
    text = shown(group)
    rows = [line.strip("│ ") for line in text.splitlines()]
    for path, command in ALL.items():
        if path[:1] == (group,) and len(path) == 2:
            assert any(row.startswith(path[1]) and row.endswith(str(command.help).split("\n\n")[0]) for row in rows)


@pytest.mark.parametrize("name", IN_PANELS)
def test_many_options_stand_in_panels(name: str) -> None:
    titles = [line.split("─ ")[1].split(" ─")[0] for line in shown(name).splitlines() if line.startswith("╭─ ")]
    for panel in IN_PANELS[name]:
        assert panel in titles
    panels = [getattr(item, "rich_help_panel", None) for item in ALL[(name,)].params]
    assert all(panels.count(panel) <= MANY for panel in panels)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_texts_are_shown_as_they_are_written(path: tuple[str, ...]) -> None:
    """Neither brackets nor what looks like an emoji are lost, and every page has an example."""
    text = "".join("".join(line.strip("│ ") for line in shown(*path, columns=1000).splitlines()).split())
    command = ALL[path]
    texts = [command.help, command.epilog, *(getattr(item, "help", None) for item in command.params)]
    hidden = {getattr(item, "help", None) for item in command.params if getattr(item, "hidden", False)}
    for markup in texts:
        if markup and markup not in hidden:
            written = str(markup).replace("[none][/none]", "").replace("\\[", "[")
            assert "".join(written.split()) in text
    assert "Example:icmlora" in text


@pytest.mark.parametrize("text", ["icmlora[serve]", "TASK[,TASK]", "builtin:family:NAME", "a:b:c:d", "[/] [bold]x[/b]"])
def test_escaped_is_what_rich_shows(text: str) -> None:
    assert Text.from_markup(escaped(text)).plain == text


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_pipe_gets_no_escapes(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "icmlora_cli", "gen", "--help"]
    done = subprocess.run(command, env=process(**environment), capture_output=True, text=True, timeout=60, check=True)
    assert "\x1b" not in done.stdout and done.stderr == "" and "What is written" in done.stdout


def test_a_dumb_terminal_gets_no_escapes_and_no_colour_means_none() -> None:
    assert b"\x1b" not in on_a_terminal(TERM="dumb")
    assert COLOUR.search(on_a_terminal(TERM="xterm")) and not COLOUR.search(on_a_terminal(TERM="xterm", NO_COLOR="1"))


def on_a_terminal(**environment: str) -> bytes:
    """Return what the help writes to a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "icmlora_cli", "gen", "--help"]
    with subprocess.Popen(command, env=process(**environment), stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # EIO: the other end is closed
            while part := os.read(ours, 65536):
                written += part
    os.close(ours)
    assert running.returncode == 0 and b"What is written" in written
    return written


def test_the_old_name_of_methods_is_hidden_and_taken() -> None:
    assert "--rungs" not in shown("eval") and "--methods" in shown("eval")
    assert any("--rungs" in item.opts for item in ALL[("eval",)].params)
