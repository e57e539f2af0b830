"""Fifty kills at random moments of a harvest: what comes out is what an undisturbed one makes, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import icmlora_cli
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.examples import Example
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.task_file import TaskSpec
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows import collect, verify
from icmlora_cli.workflows.base import pull

KILLS = 50
WORDS = ("cat", "dog", "owl", "fox", "bee", "ant")
# Imports torch once, then forks a harvest for each line that names a registry: its process number, then its exit code.
SERVER = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from icmlora_cli.config.recipes import HarvestRecipe
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows import harvest

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
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def registry(root: Path, base: Path) -> Home:
    """Return a registry with six small tasks and a base."""
    home = Home(root / "home", root / "cache")
    pull(str(base), home, offline=True)
    for word in WORDS:
        rows = [Example(f"word {index}", word) for index in range(40)]
        texts = [f"Always answer with {word}."]
        examples = [vars(row) for row in rows]
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
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert server.stdin is not None and server.stdout is not None

    def start(root: Path) -> int:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(f"{root}\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    started = time.monotonic()
    registry(tmp_path / "whole", tiny_bases["llama"])
    start(tmp_path / "whole")
    assert server.stdout.readline() == "0\n"
    longest = time.monotonic() - started
    wanted = adapters(Home(tmp_path / "whole" / "home", tmp_path / "whole" / "cache"))
    assert len(wanted) == 2 * 2 * len(WORDS)
    moments, kills, ends = random.Random(0), 0, 0
    home: Home | None = None
    created: dict[str, str] = {}
    while kills < KILLS or home is not None:
        if home is None:
            home, created = registry(tmp_path / f"killed-{ends}", tiny_bases["llama"]), {}
        pid = start(home.root.parent)
        if kills < KILLS:
            time.sleep(moments.random() * longest / 8)
            os.kill(pid, signal.SIGKILL)  # nobody has waited for it, so the number is its own
        code = int(server.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        assert verify.run(home).ok  # what is half-written or left over does not look whole, and nothing is lost
        now = {record.task: record.created for record in AdapterStore(home).all()}
        assert created.items() <= now.items()  # what was finished was not trained again
        created = now
        if len(created) == len(WORDS) and code == 0:
            assert adapters(home) == wanted
            collect.run(home, collect.plan(home))
            assert verify.run(home).faults == ()
            home, ends = None, ends + 1
    assert kills >= KILLS and ends >= 1
    server.stdin.close()
    assert server.wait(60) == 0
