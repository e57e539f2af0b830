"""Help is quick: it imports none of the heavy libraries, for any command; and each command shows an example."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import icmlora_cli

HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "safetensors", "numpy"}
ASK_ONE = """
import json, sys
from icmlora_cli.cli.app import app
try:
    app(["--help"])
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""
WALK = """
import contextlib, io, json, sys
import typer
from icmlora_cli.cli.app import app

def walk(command, path):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))

found = []
for path in walk(typer.main.get_command(app), ()):
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            app([*path, "--help"], prog_name="icmlora")
    except SystemExit as end:
        found.append([path, end.code, text.getvalue()])
print(json.dumps([found, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
VERBS = {"harvest", "train", "gen", "finetune", "eval", "push", "storage", "demo", "doctor"}
NOUNS = {"report", "task", "base", "adapter", "codec", "recipe", "registry"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_help_imports_nothing_heavy() -> None:
    done = python("-c", ASK_ONE)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0 and "icmlora demo" in done.stdout
    assert (HEAVY | {"pydantic"}).isdisjoint(modules)  # Typer itself takes pydantic for a command's options


def test_the_real_entry_point_imports_nothing_heavy() -> None:
    done = python("-X", "importtime", "-m", "icmlora_cli", "--help")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported and (HEAVY | {"pydantic"}).isdisjoint(imported)
    assert "Traceback" not in done.stderr


def test_every_help_has_an_example_and_imports_nothing_heavy() -> None:
    pages, modules = json.loads(python("-c", WALK).stdout)
    paths = {" ".join(path) for path, _, _ in pages}
    assert paths >= VERBS | NOUNS and len(paths) > 25
    assert HEAVY.isdisjoint(modules)
    for path, code, text in pages:
        assert code == 0, path
        if not path or path[-1] in NOUNS:
            continue  # groups list their commands
        name = " ".join(["icmlora", *path])
        assert f"Example: {name}" in " ".join(text.split()), name
        assert "--json" in text and "--quiet" in text, name


def test_version() -> None:
    assert python("-m", "icmlora_cli", "--version").stdout == f"icmlora {icmlora_cli.__version__}\n"


ENTER = """
import os, sys
sys.argv = ["icmlora", "--version"]
from icmlora_cli.__main__ import main
try:
    main()
finally:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""


def test_the_command_lets_threads_spin_only_a_moment_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert python("-c", ENTER).stdout.split()[-1] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert python("-c", ENTER).stdout.split()[-1] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert python("-c", ENTER).stdout.split()[-1] == "None"
