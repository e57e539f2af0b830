"""Every command of the results pages can be typed as it stands: its options, files, methods and tasks exist."""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import typer.main

from icmlora_cli.cli.app import app
from icmlora_cli.config.evaluate import METHODS
from icmlora_cli.config.recipes import recipe_path
from icmlora_cli.config.task_list import without_lists
from icmlora_cli.tasks.builtin import builtin_names
from icmlora_cli.tasks.task_file import read_task_file

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
BENCHMARK = ROOT / "benchmarks" / "function_vectors.yaml"


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of a page, of its blocks and of its lines; a command's name alone is none."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in [*(line for block in blocks for line in block.splitlines()), *inline]:
        for command in " ".join(line.split()).split(" && "):
            words = shlex.split(command, comments=True) if re.match(r"(\w+=\S+ )*(icmlora|python|cp) ", command) else []
            while words and "=" in words[0]:
                del words[0]
            if len(words) > 2 and words[:3] != ["python", "-c", "pass"]:
                yield words


def options_of(words: list[str]) -> dict[str, Any]:
    """Return the values of a command's options, as the command reads them."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]  # type: ignore[attr-defined]
    return dict(command.make_context("icmlora", words).params)


def check_tasks(patterns: list[str], families: set[str | None]) -> None:
    known = [*builtin_names(), *re.findall(r"^- name: (\S+)$", BENCHMARK.read_text(encoding="utf-8"), re.MULTILINE)]
    for pattern in without_lists(patterns):
        family = pattern.removeprefix("family:")
        assert family in families if family != pattern else any(fnmatchcase(name, pattern) for name in known), pattern


def parse_script(script: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script up to where it has read its command line."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser) -> None:
        raise ParsedError(parse(parser))

    with monkeypatch.context() as patched, pytest.raises(ParsedError):
        patched.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patched.setattr(sys, "argv", [str(script), *words])
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_pages_commands(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made = set()  # files that earlier commands of the page write
    families = set[str | None]()  # of the tasks that earlier commands of the page register from a recipe
    for program, *words in commands(page):
        if program == "cp":
            if words[0] != "-r":  # which is the baseline of a benchmark
                assert (ROOT / words[0]).is_file(), words[0]
                made.add(words[1])
            continue
        if program == "python":
            script = next(word for word in words if word.endswith(".py"))
            assert (ROOT / script).is_file(), script
            if words[0] == script:
                parse_script(ROOT / script, words[1:], monkeypatch)
            continue
        values = options_of(words)
        if isinstance(values.get("target"), Path):
            made.add(str(values["target"]))
        if (recipe := values.get("recipe")) and str(recipe) not in made:
            recipe_path(recipe, words[0])
        for source in values.get("sources") or ():
            if source.startswith("builtin:"):
                check_tasks([source.removeprefix("builtin:")], families)
            elif source.startswith("tasks/"):
                families |= {task.family for task in read_task_file(recipe_path(Path(source), "tasks"))}
            else:
                assert source in made, source
        check_tasks(values.get("tasks") or [], families)
        for method in ",".join(values.get("methods") or []).split(","):
            assert method in ("", *METHODS), method


def test_the_task_file_of_the_benchmark_is_good_beside_its_data(tmp_path: Path) -> None:
    copy = tmp_path / "tasks.yaml"
    copy.write_bytes(BENCHMARK.read_bytes())
    paths = re.findall(r"^  examples: (\S+)$", BENCHMARK.read_text(encoding="utf-8"), re.MULTILINE)
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text('[{"input": "a", "output": "b"}]', encoding="utf-8")
    tasks = {task.name: task.split for task in read_task_file(copy)}
    assert len(tasks) == len(paths) == len(set(paths))
    for split in ("train", "unseen"):
        assert {name for name, own in tasks.items() if own == split} == set(without_lists([f"@fv-{split}"]))


def test_commands_are_found() -> None:
    found = [" ".join(words) for page in PAGES for words in commands(page)]
    assert len(found) > 25 and sum(item.startswith("python benchmarks/") for item in found) > 5
