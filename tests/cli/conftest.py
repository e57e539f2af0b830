"""A tiny registry with two tasks, and the commands on it: in this process, or in one of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import icmlora_cli
from icmlora_cli.cli.app import app

HARVEST = "steps: 20\nbatch_size: 6\nlearning_rate: 0.03\nkeep: 2\nkeep_every: 2\nsave_every: 5\nrank: 8\n"
TRAIN = (
    "optimiser: {steps: 60, batch_size: 8, save_every: 30}\nnetwork: {hidden_dim: 48, code_dim: 16, latent_dim: 4}\n"
    "data: {vectors: {draws: 3, shots: 2}}\n"
)


@dataclass(frozen=True)
class Registry:
    """A registry on disk, and what the commands on it need.

    Args:
        root: the folder that all else is in; commands run there.
        base: folder of a tiny Llama.
    """

    root: Path
    base: Path

    @property
    def home(self) -> Path:
        """``ICMLORA_HOME``."""
        return self.root / "icmlora-home"

    @property
    def tasks(self) -> Path:
        """A task file with always_cat and always_dog, 40 inline examples each."""
        return self.root / "tasks.yaml"

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of a process that works on this registry."""
        package = str(Path(icmlora_cli.__file__).parents[1])
        own = {"ICMLORA_HOME": str(self.home), "ICMLORA_CACHE": str(self.root / "icmlora-cache")}
        # one thread: the models are tiny, and several threads wait for each other where the cores are shared
        return os.environ | own | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1"}

    def call(self, *arguments: object, code: int = 0) -> Result:
        """Run a command in this process; anything but its exit code counts as a crash."""
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        assert result.exit_code == code, result.output
        return result

    def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        """Run a command with ``--json``, whose stdout has to be one object."""
        value = json.loads(self.call(*arguments, "--json", code=code).stdout)
        assert isinstance(value, dict)
        return value

    def process(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as a process of its own."""
        command = [sys.executable, "-m", "icmlora_cli", *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment, cwd=self.root, capture_output=True, text=True, timeout=120, **options
        )


def _write(root: Path) -> None:
    tasks = []
    for word in ("cat", "dog"):
        rows = [{"input": f"word {index}", "output": word} for index in range(40)]
        texts = [f"Always answer with {word}.", f"Write {word}."]
        tasks.append({"name": f"always_{word}", "descriptions": texts, "examples": rows})
    (root / "tasks.yaml").write_text(json.dumps({"tasks": tasks}), encoding="utf-8")  # JSON is YAML
    (root / "harvest.yaml").write_text(HARVEST, encoding="utf-8")
    (root / "train.yaml").write_text(TRAIN, encoding="utf-8")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread, as the processes of ``Registry.process`` do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def empty(tmp_path: Path, tiny_bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry with nothing in it; the working folder is its root."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path)
    with _one_thread():
        yield Registry(tmp_path, tiny_bases["llama"])


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory, tiny_bases: dict[str, Path]) -> Path:
    registry = Registry(tmp_path_factory.mktemp("trained"), tiny_bases["llama"])
    _write(registry.root)
    with _one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(registry.root)
        for name in ("ICMLORA_HOME", "ICMLORA_CACHE"):
            patch.setenv(name, registry.environment[name])
        registry.call("task", "add", "tasks.yaml")
        registry.call("harvest", "--base", registry.base, "--recipe", "harvest.yaml")
        registry.call("train", "--base", registry.base, "--recipe", "train.yaml")
    return registry.root


@pytest.fixture
def trained(_template: Path, empty: Registry) -> Registry:
    """A registry with two harvested tasks and the generator 'default'; each test has a copy of its own."""
    for name in ("icmlora-home", "icmlora-cache"):
        shutil.copytree(_template / name, empty.root / name, dirs_exist_ok=True)
    return empty
