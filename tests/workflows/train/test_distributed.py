"""Processes and trackers: accelerate is imported when it is needed, and gradients are averaged over processes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import icmlora_cli
from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.train import train, training
from icmlora_cli.workflows.train.distributed import Distributed
from tests.train_recipes import train_recipe

SECONDS = 300
RECIPE = train_recipe(
    latent_dim=4, hidden_dim=24, code_dim=12, reader="attention", reader_dim=16, condition_dim=16, frame_width=4,
    steps=6, save_every=2, vectors=VectorRecipe(layer=0.5, pooling="tokens", shots=2, draws=2),
    episodes=EpisodeRecipe(rows=3, builtin="none", max_tokens=120, contrast_tasks=2),
)  # fmt: skip
needs_gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="needs gloo"
)

ALONE = """
import sys
from pathlib import Path
import torch
from icmlora_cli.workflows.train.distributed import Distributed

parameter = torch.nn.Parameter(torch.ones(3))
parameter.grad = torch.full((3,), 2.0)
with Distributed(None, Path("logs"), "p", {}) as distributed:
    distributed.reduce([parameter])
    distributed.log({"loss": 1.0}, 1)
    distributed.wait()
    assert (distributed.process, distributed.processes, distributed.main, distributed.device) == (0, 1, True, None)
assert parameter.grad.tolist() == [2.0] * 3
assert "accelerate" not in sys.modules
assert not Path("logs").exists()
"""

TOGETHER = """
import json
import sys
from pathlib import Path
import torch
from icmlora_cli.workflows.train.distributed import Distributed

out = Path(sys.argv[1])
distributed = Distributed(None, out / "logs", "p", {})
mine = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(3)]
mine[0].grad = torch.full((2, 3), 1.0 + 4.0 * distributed.process)
mine[2].grad = torch.arange(6.0).reshape(2, 3) * (distributed.process + 1)
with distributed:
    distributed.reduce(mine)  # the one in the middle has no gradient, in no process
    found = {
        "process": distributed.process, "processes": distributed.processes,
        "main": distributed.main, "device": distributed.device,
        "gradients": [None if item.grad is None else item.grad.tolist() for item in mine],
    }
    (out / f"{distributed.process}.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.wait()
    assert len(list(out.glob("*.json"))) == 2  # the other has written by now
"""

TRAIN = """
import json
import sys
from pathlib import Path
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows.train import train
from icmlora_cli.workflows.base.pull import pull

home = Home.from_environment()
recipe = TrainRecipe.model_validate_json(sys.argv[2])
result = train.run(TaskStore(home).select(None), pull(sys.argv[1], home, offline=True), recipe, home, name=sys.argv[3])
assert result.trained and result.folder.is_dir()
"""


def environment() -> dict[str, str]:
    package = str(Path(icmlora_cli.__file__).parents[1])
    return dict(os.environ) | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def start(script: str, root: Path, *arguments: str, processes: int) -> subprocess.CompletedProcess[str]:
    """Run a script in so many processes, which know of each other."""
    path = root / "script.py"
    path.write_text(script, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(path), *arguments]
    return subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, timeout=SECONDS)


def test_one_process_without_a_tracker_needs_no_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    done = start(ALONE, tmp_path, processes=1)
    assert done.returncode == 0, done.stderr


def missing_tracker() -> str:
    """Return a tracker that accelerate knows and that is not installed."""
    known = ("aim", "comet_ml", "clearml", "dvclive", "swanlab", "wandb")
    return next(name for name in known if importlib.util.find_spec(name) is None)


@pytest.mark.parametrize("tracker", ["nonesuch", missing_tracker()])
def test_a_tracker_that_is_not_there_is_told(tmp_path: Path, tracker: str) -> None:
    with pytest.raises(UsageError, match=f"--log-with {tracker}") as caught:
        Distributed(tracker, tmp_path / "logs", "p", {"steps": 3})
    assert caught.value.hint is not None and "--log-with" in caught.value.hint + caught.value.message


def test_a_training_with_an_unknown_tracker_leaves_nothing(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    with pytest.raises(UsageError, match="nonesuch"):
        train.run(say_tasks, llama_base, RECIPE, home, device="cpu", log_with="nonesuch")
    assert not home.generators.exists() or not list(home.generators.iterdir())


def test_tensorboard_gets_the_losses(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = train.run(say_tasks, llama_base, RECIPE, home, name="plain", device="cpu")
    result = train.run(say_tasks, llama_base, RECIPE, home, name="logged", device="cpu", log_with="tensorboard")
    assert (result.folder / "generator.safetensors").read_bytes() == (
        plain.folder / "generator.safetensors"
    ).read_bytes()
    written = list((home.root / "logs" / "logged").rglob("events.out.tfevents*"))
    steps = dict[str, list[int]]()
    for path in written:
        found = EventAccumulator(str(path.parent))
        found.Reload()
        for name in found.Tags()["scalars"]:
            steps[name] = [event.step for event in found.Scalars(name)]
    assert {"nll", "exact", "prior"} <= set(steps) and steps["nll"] == list(range(1, RECIPE.optimiser.steps + 1))
    assert not (home.root / "logs" / "plain").exists()


@needs_gloo
def test_gradients_are_the_mean_over_processes(tmp_path: Path) -> None:
    done = start(TOGETHER, tmp_path, str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{process}.json").read_text(encoding="utf-8")) for process in range(2)]
    for process, item in enumerate(found):
        assert (item["process"], item["processes"], item["main"]) == (process, 2, process == 0)
        assert item["device"].startswith("cpu")
        first, second, third = item["gradients"]
        assert first == [[3.0] * 3] * 2 and second is None
        assert third == [[0.0, 1.5, 3.0], [4.5, 6.0, 7.5]]


@needs_gloo
def test_two_processes_train_one_generator(
    tmp_path: Path, home: Home, say_tasks: tuple[Task, ...], tiny_bases: dict[str, Path]
) -> None:
    recipe, base = RECIPE.model_dump_json(), str(tiny_bases["llama"])
    for name in ("first", "second"):
        done = start(TRAIN, tmp_path, base, recipe, name, processes=2)
        assert done.returncode == 0, done.stderr
    assert start(TRAIN, tmp_path, base, recipe, "alone", processes=1).returncode == 0
    first, second, alone = (
        (home.generators / name / "generator.safetensors").read_bytes() for name in ("first", "second", "alone")
    )
    assert first == second != alone  # each process has rows of its own
    assert not list(home.generators.glob(f"*{training.STATE}"))
