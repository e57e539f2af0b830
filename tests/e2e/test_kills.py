"""Fifty kills at random moments of a harvest: what comes out is what an undisturbed one makes, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

import icmlora_cli
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.registry import gc, verify

KILLS = 50
WORDS = ("cat", "dog", "owl", "fox", "bee", "ant")
# Imports torch once. Of a line that names a registry it forks a harvest and says the process number; after one more
# line it waits for that process, which keeps its number until then, and says the exit code.
SERVER = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows.harvest import harvest

print("ready", flush=True)
recipe = HarvestRecipe(steps=120, batch_size=6, learning_rate=3e-2, keep=2, keep_every=2, save_every=7, rank=4)
for line in sys.stdin:
    root = Path(line.strip())
    home = Home(root / "home", root / "cache")
    pid = os.fork()
    if not pid:
        (base,) = BaseStore(home).all()
        harvest.run(TaskStore(home).all(), base, recipe, home, device="cpu")
        os._exit(0)
    print(pid, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def registry(root: Path, base: Path) -> Home:
    """Return a registry with six small tasks and a base."""
    home = Home(root / "home", root / "cache")
    pull(str(base), home, offline=True)
    for word in WORDS:
        rows = [Example(f"word {index}", word) for index in range(40)]
        texts = [f"Always answer with {word}."]
        examples = [row.as_dict() for row in rows]
        spec = TaskSpec.model_validate({"name": f"always_{word}", "descriptions": texts, "examples": examples})
        TaskStore(home).add(spec, rows)
    return home


def adapters(home: Home) -> dict[str, bytes]:
    """Return all that the checkpoints of a registry hold, by path."""
    files = sorted(home.adapters.glob("*/*/*/checkpoint-*/*"))
    return {str(path.relative_to(home.adapters)): path.read_bytes() for path in files}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_fifty_kills(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        kill_and_compare(Forks(server.stdin, server.stdout), tmp_path, tiny_bases["llama"])


@dataclass(frozen=True)
class Forks:
    """Harvests as processes of their own, each a fork of one that has imported torch.

    Args:
        told: what it reads.
        said: what it writes.
    """

    told: IO[str]
    said: IO[str]

    def _tell(self, line: str) -> int:
        self.told.write(f"{line}\n")
        self.told.flush()
        return int(self.said.readline())

    def start(self, root: Path) -> int:
        """Start a harvest of the registry in a folder and return its process number, its own until ``end``."""
        return self._tell(str(root))

    def end(self) -> int:
        """Wait for the harvest and return its exit code."""
        return self._tell("")


def kill_and_compare(forks: Forks, root: Path, base: Path) -> None:
    """Harvest once undisturbed, then with kills in as many registries as it takes."""
    undisturbed = registry(root / "whole", base)
    started = time.monotonic()
    forks.start(root / "whole")
    assert forks.end() == 0
    longest, wanted = time.monotonic() - started, adapters(undisturbed)
    assert len(wanted) == 2 * 2 * len(WORDS)
    moments, kills, ends = random.Random(0), 0, 0
    home: Home | None = None
    created: dict[str, str] = {}
    while kills < KILLS or home is not None:
        if home is None:
            home, created = registry(root / f"killed-{ends}", base), {}
        pid = forks.start(home.root.parent)
        if kills < KILLS:
            time.sleep(moments.random() * longest / 4)
            os.kill(pid, signal.SIGKILL)
        code = forks.end()
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        assert verify.run(home).ok  # what is half-written or left over does not look whole, and nothing is lost
        now = {record.task: record.created for record in AdapterStore(home).all()}
        assert created.items() <= now.items()  # what was finished was not trained again
        created = now
        if code == 0:
            gc.run(home, gc.plan(home))
            assert adapters(home) == wanted and verify.run(home).faults == ()
            home, ends = None, ends + 1
    assert kills >= KILLS and ends >= 1
