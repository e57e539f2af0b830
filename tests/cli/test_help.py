"""How ``--help`` looks: panels, first sentences that fit a line, texts as they are written, no colours in a file."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

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
MANY = 10  # options that one panel may hold, and --help


def shown(*words: str, columns: int = 100, **environment: str) -> str:
    """Return what ``icmlora WORDS --help`` prints into a pipe, where ``FORCE_COLOR`` and the like do not count."""
    own = {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1]), "COLUMNS": str(columns)}
    kept = {name: text for name, text in os.environ.items() if name not in {"FORCE_COLOR", "PY_COLORS"}}
    done = subprocess.run(
        [sys.executable, "-m", "icmlora_cli", *words, "--help"],
        env=kept | own | {"GITHUB_ACTIONS": ""} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


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


def test_a_file_gets_no_escapes_and_a_dumb_terminal_neither() -> None:
    assert "\x1b" not in shown("gen", NO_COLOR="1") + shown("gen", TERM="dumb") + shown("gen", PYTHONUTF8="1")
    assert Console(file=None, _environ={"TERM": "dumb"}, force_terminal=True).color_system is None


def test_the_old_name_of_methods_is_hidden_and_taken() -> None:
    assert "--rungs" not in shown("eval") and "--methods" in shown("eval")
    assert any("--rungs" in item.opts for item in ALL[("eval",)].params)
