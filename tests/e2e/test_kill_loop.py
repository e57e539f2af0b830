"""Three hundred kills at file-system operations of every command that writes: nothing is lost, and verify is right."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

import icmlora_cli
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.registry import gc, verify
from tests.small_registry import flip

KILLS_A_COMMAND = 32
# Imports what is heavy once. Of each line of JSON it forks a process that runs icmlora with those arguments, and is
# killed at the change of the file system whose number stands there; it answers with the exit code.
SERVER = """
import json, os, sys
import torch
torch.set_num_threads(1)
import peft, transformers  # noqa
from icmlora_cli.cli.app import app
from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.evaluate import evaluate  # noqa
from icmlora_cli.workflows.gen import generate  # noqa
from icmlora_cli.workflows.harvest import harvest  # noqa
from icmlora_cli.workflows.train import train  # noqa
from tests.dying import die_at_change

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if not pid:
        os.chdir(order["root"])
        os.environ |= {"ICMLORA_HOME": order["root"] + "/home", "ICMLORA_CACHE": order["root"] + "/cache"}
        devnull = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        die_at_change(order["count"], (order["root"],), order["report"])
        code = 0
        try:
            app(order["arguments"], standalone_mode=True)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1 if error.code else 0
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Runner:
    """Runs icmlora in forks of one process.

    Args:
        told: what that process reads.
        said: what it writes.
        folder: for what it notes down.
    """

    told: IO[str]
    said: IO[str]
    folder: Path

    def run(self, root: Path, arguments: Sequence[str], count: int = 0) -> int:
        """Run a command below a folder, killed at a change of the file system; return its exit code."""
        order = {
            "root": str(root),
            "arguments": list(arguments),
            "count": count,
            "report": str(self.folder / "changes") if count == 0 else None,
            "log": str(self.folder / "log"),
        }
        self.told.write(json.dumps(order) + "\n")
        self.told.flush()
        return int(self.said.readline())

    @property
    def changes(self) -> int:
        """How many changes the last undisturbed command made."""
        return int((self.folder / "changes").read_text())

    @property
    def log(self) -> str:
        """What the last command printed."""
        return (self.folder / "log").read_text()


@contextmanager
def runner(folder: Path) -> Iterator[Runner]:
    """Start the process that forks."""
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield Runner(server.stdin, server.stdout, folder)


def prepared(root: Path, base: Path, runs: Runner) -> None:
    """Fill a registry: two tasks with adapters, a built-in task, a generator, an output, an archive, examples."""
    home = Home(root / "home", root / "cache")
    pull(str(base), home, offline=True)
    for word in ("cat", "dog"):
        rows = [Example(f"word {index}", word) for index in range(40)]
        values = {"name": f"say_{word}", "description": f"Say {word}.", "examples": [vars(row) for row in rows]}
        TaskStore(home).add(TaskSpec.model_validate(values), rows)
    TaskStore(home).add_builtin("pick_last_of_3")
    (root / "harvest.yaml").write_text("steps: 6\nbatch_size: 4\nkeep: 1\nrank: 2\nsave_every: 2\n")
    few = [json.dumps({"input": f"word {index}", "output": "cat"}) for index in range(4)]
    (root / "few.jsonl").write_text("\n".join(few) + "\n")
    more = [json.dumps({"input": f"word {index}", "output": "owl"}) for index in range(40)]
    (root / "more.jsonl").write_text("\n".join(more) + "\n")
    (root / "new.yaml").write_text("name: say_owl\ndescription: Say owl.\nexamples: more.jsonl\n")
    for arguments in (
        ["harvest", "--base", str(base), "--recipe", "harvest.yaml", "--tasks", "say_*"],
        ["train", "--base", str(base), "--steps", "4", "--name", "small"],
        ["gen", "Say cat.", "-g", "small", "-o", "made"],
        ["registry", "export", "-o", "all.tar.zst"],
    ):
        assert runs.run(root, arguments) == 0, runs.log


def commands(base: Path) -> dict[str, list[str]]:
    """Return the commands that write, each as it is typed."""
    on = ["--base", str(base)]
    return {
        "task add": ["task", "add", "new.yaml"],
        "task remove": ["task", "remove", "pick_last_of_3", "--yes"],
        "base pull": ["base", "pull", str(base)],
        "adapter import": ["adapter", "import", "made", "--task", "pick_last_of_3", *on],
        "adapter export": ["adapter", "export", "say_cat", "-o", "out"],
        "harvest": ["harvest", *on, "--recipe", "harvest.yaml", "--tasks", "pick_*"],
        "train": ["train", *on, "--steps", "3", "--name", "other"],
        "gen": ["gen", "Say dog.", "-g", "small", "-o", "out"],
        "gen --merge": ["gen", "Say dog.", "-g", "small", "-o", "out", "--merge"],
        "merge": ["merge", "-a", "say_cat", "-o", "out"],
        "finetune": ["finetune", "--from", "made", "--examples", "few.jsonl", "-o", "out", "--steps", "2"],
        "registry export": ["registry", "export", "-o", "more.tar.zst"],
        "registry import": ["registry", "import", "all.tar.zst", "--force"],
        "registry gc": ["registry", "gc", "--yes"],
        "registry verify --repair": ["registry", "verify", "--repair"],
    }


def contents(root: Path) -> set[bytes]:
    """Return what the files of a registry hold, but for what can be made again: locks, leases and cached vectors."""
    found = set()
    for path in (root / "home").rglob("*"):
        if path.is_file() and path.suffix != ".lock" and path.name not in ("lease", "why.json"):
            found.add(path.read_bytes())
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_three_hundred_kills_lose_nothing(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    base = tiny_bases["llama"]
    first = tmp_path / "first"
    first.mkdir()
    kills = 0
    with runner(tmp_path) as runs:
        prepared(first, base, runs)
        for name, arguments in commands(base).items():
            start = tmp_path / "start"
            shutil.copytree(first, start, symlinks=True)
            damaged = name in ("registry import", "registry verify --repair")
            if damaged:
                flip(next((start / "home" / "adapters").glob("*/say_cat/*/checkpoint-*/adapter_model.safetensors")))
                flip(start / "home" / "tasks" / "pick_last_of_3" / "examples.jsonl")
            if name == "registry gc":
                shutil.copytree(start / "home" / "tasks" / "say_cat", start / "home" / "tasks" / ".tmp-0abc-say_x")
            whole = tmp_path / "whole"
            shutil.copytree(start, whole, symlinks=True)
            assert runs.run(whole, arguments) == 0, f"{name}: {runs.log}"
            for number in sorted({1 + index * runs.changes // KILLS_A_COMMAND for index in range(KILLS_A_COMMAND)}):
                kills += killed(runs, start, tmp_path / "killed", arguments, number, damaged=damaged)
            shutil.rmtree(start)
            shutil.rmtree(whole)
    assert kills >= 300


def killed(runs: Runner, start: Path, root: Path, arguments: Sequence[str], number: int, *, damaged: bool) -> int:
    """Kill a command once, and check what is left; return whether it was killed before it ended."""
    shutil.copytree(start, root, symlinks=True)
    home = Home(root / "home", root / "cache")
    before = contents(root)
    code = runs.run(root, arguments, number)
    assert code in (0, -signal.SIGKILL), f"{arguments} at {number}: {code}: {runs.log}"
    removed = arguments[:2] in (["task", "remove"], ["registry", "gc"])
    assert removed or before <= contents(root), f"{arguments} at {number} lost bytes"
    if not damaged:
        lost = [finding for finding in verify.run(home).faults if finding.severe]
        assert lost == [], f"{arguments} at {number}: {lost}"
    gc.run(home, gc.plan(home, ["temporary", "quarantine"]))
    again = runs.run(root, arguments)
    done_before = ("there is no", "has no", "is there already", "exists")  # it was killed at its very end
    assert again == 0 or any(text in runs.log for text in done_before), f"again, at {number}: {runs.log}"
    assert verify.run(home, repair=damaged).ok, f"{arguments} at {number}: {verify.run(home).faults}"
    shutil.rmtree(root)
    return int(code != 0)
