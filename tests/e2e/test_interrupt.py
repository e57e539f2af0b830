"""Ctrl-C and kill at any moment: a clean end, and the same command then makes the very same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import icmlora_cli
from icmlora_cli.cli.app import app
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.generators import GeneratorStore

HARVEST = "steps: 500\nbatch_size: 6\nlearning_rate: 0.03\nkeep: 2\nkeep_every: 2\nsave_every: 25\nrank: 4\n"
TRAIN = (
    "optimiser: {steps: 800, batch_size: 8, save_every: 20}\nnetwork: {hidden_dim: 48, code_dim: 16, latent_dim: 4}\n"
    "data: {vectors: {draws: 3, shots: 2}}\n"
)
EPISODES = """
optimiser: {steps: 120, batch_size: 4, pretrain_steps: 12, learning_rate: 0.01, save_every: 3}
network: {latent_dim: 4, hidden_dim: 24, code_dim: 12, reader: attention, reader_dim: 16, condition_dim: 16}
data:
  frame_width: 4
  token_dropout: 0.1
  vectors: {layer: 0.5, pooling: tokens, shots: 2, draws: 2}
storage: int8
episodes:
  rows: 4
  builtin: catalog
  per_family: 1
  builtin_examples: 6
  phrasings: 1
  max_tokens: 120
  contrast_tasks: 4
  validation_tasks: 2
  validation_examples: 3
  validate_every: 7
"""
SAID = "interrupted: what was finished is kept; run the same command again to go on"
METHODS = (
    "base,described,in-context,average,nearest,nearest-shots,weighted,multi-task,noise,random-text,swapped-text,"
    "generated,generated-shots,best-of,harvested"
)  # all that no clock decides
SECONDS = 240.0
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells what is imported by /proc")


def listen() -> None:
    """Let Ctrl-C in again: what a shell starts in the background ignores it, and so would all that we start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Place:
    """A registry, and processes that work on it.

    Args:
        root: the folder that all else is in.
        base: folder of a tiny Llama.
    """

    root: Path
    base: Path

    @property
    def home(self) -> Home:
        return Home(self.root / "home", self.root / "cache")

    @property
    def environment(self) -> dict[str, str]:
        return {"ICMLORA_HOME": str(self.home.root), "ICMLORA_CACHE": str(self.home.cache)}

    def recipe(self, kind: str) -> Path:
        return self.root / f"{kind}.yaml"

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        package = str(Path(icmlora_cli.__file__).parents[1])
        own = self.environment | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "icmlora_cli", *map(str, command)],
            env=os.environ | own, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=listen,
        )  # fmt: skip

    def finish(self, *command: object) -> str:
        """Run a command to its good end, in this process, and return its stdout."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        result = CliRunner().invoke(app, [str(argument) for argument in command], env=self.environment)
        torch.set_num_threads(threads)
        assert result.exit_code == 0, result.output
        return result.stdout

    def checkpoints(self) -> dict[str, list[str]]:
        """Return the hashes of each task's checkpoints."""
        return {record.task: [item.sha256 for item in record.checkpoints] for record in AdapterStore(self.home).all()}

    def generator(self) -> tuple[bytes, object]:
        """Return the weights of the generator, and the whole curve of its training."""
        folder = GeneratorStore(self.home).find("default")
        curve = json.loads((folder / "generator.json").read_text())["curve"]
        assert curve
        return (folder / "generator.safetensors").read_bytes(), curve


def place(root: Path, base: Path, words: Sequence[str] = ("cat", "dog")) -> Place:
    """Make a place with a task a word and the recipes."""
    root.mkdir()
    tasks = []
    for word in words:
        rows = [{"input": f"word {index}", "output": word} for index in range(40)]
        tasks.append({"name": f"always_{word}", "descriptions": [f"Always answer with {word}."], "examples": rows})
    (root / "tasks.yaml").write_text(json.dumps({"tasks": tasks}), encoding="utf-8")  # JSON is YAML
    (root / "harvest.yaml").write_text(HARVEST, encoding="utf-8")
    (root / "train.yaml").write_text(TRAIN, encoding="utf-8")
    (root / "episodes.yaml").write_text(EPISODES, encoding="utf-8")
    made = Place(root, base)
    made.finish("task", "add", root / "tasks.yaml")
    return made


def wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    """Wait until something is so while the process runs."""
    end = time.monotonic() + SECONDS
    while not until():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.002)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Send Ctrl-C and check that the process ends as documented."""
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, stderr
    assert stdout == "" and stderr.splitlines()[-1] == SAID
    assert "Traceback" not in stderr and "Exception ignored" not in stderr


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process, which leaves it no moment to clean up."""
    process.kill()
    process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGKILL


def newer(path: Callable[[], Path | None]) -> Callable[[], bool]:
    """Return what tells whether a file appeared, or was written anew, since now."""

    def stamp() -> int:
        found = path()
        try:
            return found.stat().st_mtime_ns if found is not None else 0
        except FileNotFoundError:
            return 0

    before = stamp()
    return lambda: stamp() > before


def saved_step(state: Path) -> int:
    """Return how many steps a saved training has behind it."""
    from safetensors import safe_open

    with safe_open(state, framework="pt") as found:
        return int(found.metadata()["step"])


def test_harvest_and_train(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    broken, whole = (place(tmp_path / name, tiny_bases["llama"]) for name in ("broken", "whole"))
    harvest = ("harvest", "--base", broken.base, "--recipe", broken.recipe("harvest"))
    train = ("train", "--base", broken.base, "--recipe", broken.recipe("train"))

    def harvest_state(task: str) -> Callable[[], Path | None]:
        return lambda: next(broken.home.adapters.glob(f"*/{task}/*/state.safetensors"), None)

    first = broken.start(*harvest)
    wait(first, newer(harvest_state("always_cat")))
    interrupt(first)
    assert broken.checkpoints() == {}
    third = broken.start(*harvest)
    wait(third, newer(harvest_state("always_dog")))
    kill(third)
    assert list(broken.checkpoints()) == ["always_cat"]
    broken.finish("task", "list")
    resumed = json.loads(broken.finish(*harvest, "--json"))
    assert resumed["trained"] == ["always_dog"]
    whole.finish(*harvest)
    assert broken.checkpoints() == whole.checkpoints() and len(broken.checkpoints()) == 2
    assert not list(broken.home.adapters.glob("*/*/*/state.safetensors"))

    def train_state() -> Path:
        return broken.home.generators / "default.training.safetensors"

    fourth = broken.start(*train)
    wait(fourth, newer(train_state))
    interrupt(fourth)
    fifth = broken.start(*train)
    wait(fifth, newer(train_state))
    kill(fifth)
    assert GeneratorStore(broken.home).names() == ()
    broken.finish("storage")
    broken.finish(*train)
    whole.finish(*train)
    assert broken.generator() == whole.generator()
    assert not train_state().exists()


def test_train_in_episodes(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    """Without any adapter: killed and interrupted at random moments, within and between saves and validations."""
    broken, whole = (place(tmp_path / name, tiny_bases["llama"]) for name in ("broken", "whole"))
    command = ("train", "--base", broken.base, "--recipe", broken.recipe("episodes"))
    whole.finish(*command)
    state = broken.home.generators / "default.training.safetensors"
    moments, saved = random.Random(0), 0
    for stop in (kill, interrupt, kill):
        more = moments.randint(1, 4)
        process = broken.start(*command)
        for _ in range(more):
            wait(process, newer(lambda: state))
        process.send_signal(signal.SIGSTOP)  # it is at work: what is checked next stays so
        step = saved_step(state)
        assert saved < step < 120  # it went on where it was
        saved = step
        process.send_signal(signal.SIGCONT)
        time.sleep(moments.random() * 0.02)
        stop(process)
        assert GeneratorStore(broken.home).names() == ()
        broken.finish("storage")
    result = json.loads(broken.finish(*command, "--json"))
    assert result["trained"] and result["harvested"] == 0 and result["builtin"] > 10
    assert broken.generator() == whole.generator()
    assert not state.exists()
    assert not json.loads(broken.finish(*command, "--json"))["trained"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bases: dict[str, Path]) -> Place:
    """A place with a generator that learned little, and a task that takes long to score."""
    made = place(tmp_path_factory.mktemp("interrupt") / "trained", tiny_bases["llama"])
    made.finish("harvest", "--base", made.base, "--recipe", made.recipe("harvest"), "--steps", "4")
    made.finish("train", "--base", made.base, "--recipe", made.recipe("train"), "--steps", "10")
    rows = [{"input": f"thing {index}", "output": "owl"} for index in range(3000)]
    task = {"name": "z_long", "description": "Say owl.", "examples": rows, "split": "unseen"}
    (made.root / "long.yaml").write_text(json.dumps(task), encoding="utf-8")
    made.finish("task", "add", made.root / "long.yaml")
    return made


def test_eval(trained: Place) -> None:
    """Killed at random moments, it goes on and ends with the very file of an uninterrupted run."""
    out, whole = trained.root / "broken-result", trained.root / "whole-result"
    (trained.root / "eval.yaml").write_text(
        f"methods: [{METHODS}]\nmulti_task_steps: 60\nsamples: 4\n", encoding="utf-8"
    )
    command = ("eval", "--base", trained.base, "--recipe", trained.recipe("eval"), "--limit", "60", "--json", "-o", out)

    def scores() -> int:
        return len(list(out.glob("scores/*/*.json")))

    moments = random.Random(0)
    for stop in (interrupt, kill, kill, interrupt, kill):
        before, more = scores(), moments.randint(1, 5)
        process = trained.start(*command)
        wait(process, lambda: scores() >= before + more)  # noqa: B023
        time.sleep(moments.random() * 0.05)
        stop(process)
        assert not (out / "result.json").exists()
    there = scores()
    assert 5 <= there < 3 * len(METHODS.split(","))
    resumed = json.loads(trained.finish(*command))
    assert 0 < resumed["scored"] <= len(resumed["scores"]) - there
    assert {score["task"] for score in resumed["scores"]} == {"always_cat", "always_dog", "z_long"}
    first = (out / "result.json").read_bytes()
    shutil.move(out, whole)
    figures = [score for score in resumed["scores"] if score["reason"] is None]
    assert json.loads(trained.finish(*command))["scored"] == len(figures) >= len(resumed["scores"]) - 1
    assert (out / "result.json").read_bytes() == first


def test_gen(trained: Place) -> None:
    """The write is short: it may be over before the kill, and then the output has to be whole."""
    command = ("gen", "Say cat.", "--merge", "-o")
    trained.finish(*command, trained.root / "whole")
    out = trained.root / "out"
    killed = trained.start(*command, out)
    end = time.monotonic() + SECONDS
    while killed.poll() is None and not list(trained.root.glob(".tmp-*")) and time.monotonic() < end:
        time.sleep(0.001)
    killed.kill()
    killed.communicate(timeout=SECONDS)
    again = () if killed.returncode else ("--force",)
    assert out.exists() == bool(again)
    trained.finish(*command, out, *again)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (out, trained.root / "whole")]
    assert weights[0] == weights[1]


@needs_proc
@pytest.mark.parametrize("library", ["pydantic_core", "libtorch_cpu", "_multiarray_umath", "tokenizers"])
def test_ctrl_c_during_the_imports(trained: Place, library: str) -> None:
    """Libraries that are interrupted while they are imported swallow it, or raise errors of their own."""
    process = trained.start("gen", "Say dog.", "-o", "never", "--offline")
    maps = Path(f"/proc/{process.pid}/maps")
    wait(process, lambda: library in maps.read_text(encoding="utf-8"))
    interrupt(process)
    assert not (trained.root / "never").exists()


@needs_proc
def test_harvests_share_the_work(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    """Four on one registry, two of them killed: every task is trained once, to the bytes of one harvest alone."""
    words = ("cat", "dog", "owl", "fox", "bee", "ant")
    shared, alone = (place(tmp_path / name, tiny_bases["llama"], words) for name in ("shared", "alone"))
    harvest = ("harvest", "--base", shared.base, "--recipe", shared.recipe("harvest"), "--json")
    workers = [shared.start(*harvest) for _ in range(4)]
    rng = random.Random(0)
    for victim in rng.sample(workers, 2):
        wait(victim, newer(lambda: next(iter(sorted(shared.home.adapters.glob("*/*/*/state.safetensors"))), None)))
        time.sleep(rng.random())
        kill(victim)
    trained: list[str] = []
    for worker in workers:
        stdout, stderr = worker.communicate(timeout=SECONDS) if worker.returncode is None else ("", "")
        assert worker.returncode in (0, -signal.SIGKILL), stderr
        trained += json.loads(stdout)["trained"] if stdout else []
    manifests = list(shared.home.adapters.rglob("manifest.json"))
    assert len(manifests) == len(words) and len(trained) == len(set(trained))
    assert set(trained) <= {f"always_{word}" for word in words}
    assert json.loads(shared.finish(*harvest))["trained"] == []
    alone.finish(*harvest[:-1])
    assert shared.checkpoints() == alone.checkpoints()
    assert not [path for path in shared.home.adapters.rglob("*") if path.name in ("lease", "state.safetensors")]


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@needs_proc
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    shared = place(tmp_path / "shared", tiny_bases["llama"], ("cat", "dog"))
    harvest = ("harvest", "--base", shared.base, "--recipe", shared.recipe("harvest"), "--json")
    parent = shared.start(*harvest, "--workers", "2")
    wait(parent, newer(lambda: next(shared.home.adapters.glob("*/*/*/state.safetensors"), None)))
    workers = {pid for pid in children(parent.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    assert len(workers) == 2
    kill(parent)
    end = time.monotonic() + SECONDS
    while alive := {pid for pid in workers if Path(f"/proc/{pid}").exists()}:
        assert time.monotonic() < end, f"still there: {alive}"
        time.sleep(0.05)
    assert json.loads(shared.finish(*harvest))["adapters"]
    assert len(list(shared.home.adapters.rglob("manifest.json"))) == 2


@needs_proc
def test_a_stopped_worker_does_not_record_what_was_taken_over(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    shared = place(tmp_path / "shared", tiny_bases["llama"], ("cat",))
    harvest = ("harvest", "--base", shared.base, "--recipe", shared.recipe("harvest"), "--json")
    first = shared.start(*harvest)
    wait(first, newer(lambda: next(shared.home.adapters.glob("*/*/*/state.safetensors"), None)))
    first.send_signal(signal.SIGSTOP)
    next(shared.home.adapters.rglob("lease")).unlink()  # as when another machine has waited long enough
    second = json.loads(shared.finish(*harvest))
    manifest = next(shared.home.adapters.rglob("manifest.json"))
    written = manifest.stat().st_mtime_ns
    first.send_signal(signal.SIGCONT)
    stdout, stderr = first.communicate(timeout=SECONDS)
    assert first.returncode == 0, stderr
    assert second["trained"] == ["always_cat"] and json.loads(stdout)["trained"] == []
    assert manifest.stat().st_mtime_ns == written
