"""Many tasks in each pass: the adapters, records and states are those of one task after the other."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.disk.leases import Lease
from icmlora_cli.errors import TrainingDivergedError, UsageError
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.adapters import STATE, AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.weights.sensitivity import read_sensitivity
from icmlora_cli.workflows.harvest import harvest, local_workers, status
from icmlora_cli.workflows.harvest.keys import harvest_key
from icmlora_cli.workflows.harvest.together import MOST, fitting_tasks
from icmlora_cli.workflows.progress import Progress

ROOT = Path(__file__).resolve().parents[3]
COUNT = 18
KINDS = ("lora", "frozen-a", "frame")
RECIPE = HarvestRecipe(
    steps=7, batch_size=4, learning_rate=2e-2, keep=2, keep_every=3, save_every=2, rank=3, validate_on=6
)
DIE = """
import sys
sys.path.insert(0, sys.argv[1])
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows.harvest import harvest
from tests.dying import die_at_rename
home = Home.from_environment()
tasks = [TaskStore(home).get(name) for name in TaskStore(home).names()]
recipe = HarvestRecipe.model_validate_json(sys.argv[2])
die_at_rename(int(sys.argv[3]))
harvest.run(tasks, BaseStore(home).get(sys.argv[4]), recipe, home, device="cpu", tasks_per_batch=16)
"""


@pytest.fixture
def tasks(home: Home) -> tuple[Task, ...]:
    """Tasks of unlike lengths and counts of examples, one of plain text."""
    found = []
    for number in range(COUNT):
        rows = [
            Example(f"{'w ' * (1 + (index + number) % 5)}{index}", f"{chr(97 + number)}")
            for index in range(30 + 7 * number % 20)
        ]
        values: dict[str, object] = {"name": f"task_{number:02d}", "description": f"Say {number}."}
        if number == 5:
            rows = [Example("", f"Text {index}. one two three four five.") for index in range(40)]
            values |= {"template": "text", "examples": [{"text": "a"}]}
        else:
            values |= {"examples": [{"input": "a", "output": "b"}]}
        found.append(TaskStore(home).add(TaskSpec.model_validate(values), rows)[0])
    return tuple(found)


@pytest.fixture
def reference(llama_base: Base, tmp_path: Path) -> Callable[..., dict[str, AdapterRecord]]:
    """Harvest one task after the other, in another registry."""

    def run(tasks: tuple[Task, ...], recipe: HarvestRecipe) -> dict[str, AdapterRecord]:
        elsewhere = Home(tmp_path / "other-home", tmp_path / "other-cache")
        result = harvest.run(tasks, llama_base, recipe, elsewhere, device="cpu")
        return {record.task: record for record in result.records}

    return run


def assert_like(record: AdapterRecord, other: AdapterRecord) -> None:
    assert (record.key, [item.step for item in record.checkpoints]) == (
        other.key, [item.step for item in other.checkpoints]
    )  # fmt: skip
    assert set(record.figures) == set(other.figures)
    for name in set(record.figures) - {"seconds", "joules"}:
        assert record.figures[name] == pytest.approx(other.figures[name], rel=1e-3, abs=1e-4)
    for one, two in zip(record.checkpoints, other.checkpoints, strict=True):
        first, second = (read_adapter(item.folder / part.folder) for item, part in ((record, one), (other, two)))
        assert (first.alpha, set(first.factors)) == (second.alpha, set(second.factors))
        for name, item in first.factors.items():
            assert torch.allclose(item.lora_a, second.factors[name].lora_a, atol=1e-4)
            assert torch.allclose(item.lora_b, second.factors[name].lora_b, atol=1e-4)
    assert (record.sensitivity is None) == (other.sensitivity is None)
    if record.sensitivity is not None and other.sensitivity is not None:
        squares, twins = (read_sensitivity(item.folder / "sensitivity.safetensors") for item in (record, other))
        for name, square in squares.items():
            assert torch.allclose(square, twins[name], rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_at_once_are_what_they_are_alone(
    tasks: tuple[Task, ...], llama_base: Base, home: Home, reference: Callable[..., dict[str, AdapterRecord]], kind: str
) -> None:
    recipe = RECIPE.model_copy(update={"parametrization": kind})
    said: list[Progress] = []
    result = harvest.run(tasks, llama_base, recipe, home, device="cpu", tasks_per_batch=16, on_progress=said.append)
    assert sorted(result.trained) == sorted(task.name for task in tasks)
    assert [record.task for record in result.records] == [task.name for task in tasks]
    alone = reference(tasks, recipe)
    for record in result.records:
        assert_like(record, alone[record.task])
        assert (record.sensitivity is not None) == (kind == "frame") and record.figures["seconds"] > 0
    assert not list(home.adapters.rglob(STATE)) and not list(home.adapters.rglob("lease"))
    assert (said[-1].items_done, said[-1].items_total) == (COUNT, COUNT)
    assert sum(record.figures["seconds"] for record in result.records) <= result.seconds
    again = harvest.run(tasks, llama_base, recipe, home, device="cpu", tasks_per_batch=4)
    assert again.trained == () and again.records == result.records


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_gone_on_with_by_another_number(
    tasks: tuple[Task, ...], llama_base: Base, home: Home, reference: Callable[..., dict[str, AdapterRecord]], kind: str
) -> None:
    recipe = RECIPE.model_copy(update={"parametrization": kind})
    script = [sys.executable, "-W", "ignore", "-c", DIE, str(ROOT), recipe.model_dump_json(), "40", llama_base.name]
    killed = subprocess.run(script, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    found = status.run(tasks, llama_base.slug, home)
    saved = {item.task for item in found if item.saved_step is not None}
    assert len(saved) == 16 and not AdapterStore(home).all()
    steps: dict[str, list[int]] = {}

    def note(progress: Progress) -> None:
        steps.setdefault(progress.label, []).append(progress.done)

    result = harvest.run(tasks, llama_base, recipe, home, device="cpu", tasks_per_batch=3, on_progress=note)
    assert len(result.trained) == COUNT
    # each from its saved state, and the others from their start
    assert {name for name, done in steps.items() if min(done) > 1} == saved
    alone = reference(tasks, recipe)
    for record in result.records:
        assert_like(record, alone[record.task])


def test_a_task_that_another_worker_trains_is_left_to_it(tasks: tuple[Task, ...], llama_base: Base, home: Home) -> None:
    taken = tasks[2]
    lease = Lease(AdapterStore(home).folder(llama_base.slug, taken.name, harvest_key(llama_base, taken, RECIPE)))
    waited: list[Progress] = []

    class EnoughError(Exception):
        pass

    def note(progress: Progress) -> None:
        if progress.label == "waiting":
            waited.append(progress)
            raise EnoughError

    with lease.tried() as acquired, pytest.raises(EnoughError):
        assert acquired
        harvest.run(tasks[:5], llama_base, RECIPE, home, device="cpu", tasks_per_batch=3, on_progress=note)
    assert waited[0].items_done == 4
    assert {record.task for record in AdapterStore(home).all()} == {task.name for task in tasks[:5]} - {taken.name}
    result = harvest.run(tasks[:5], llama_base, RECIPE, home, device="cpu", tasks_per_batch=3)
    assert result.trained == (taken.name,)


def test_what_stops_one_stops_the_harvest_and_frees_the_leases(
    tasks: tuple[Task, ...], llama_base: Base, home: Home
) -> None:
    broken = RECIPE.model_copy(update={"learning_rate": 3e37})
    with pytest.raises(TrainingDivergedError, match="at step"):
        harvest.run(tasks[:4], llama_base, broken, home, device="cpu", tasks_per_batch=4)
    packed = RECIPE.model_copy(update={"packing": True})
    with pytest.raises(UsageError, match="several tasks are to share a pass"):
        harvest.run(tasks[:4], llama_base, packed, home, device="cpu", tasks_per_batch=4)
    assert not list(home.adapters.rglob("lease"))
    assert len(harvest.run(tasks[:4], llama_base, RECIPE, home, device="cpu", tasks_per_batch=4).trained) == 4


def test_how_many_fit_follows_the_memory(tasks: tuple[Task, ...], llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    assert fitting_tasks(loaded, RECIPE, tasks) == 1  # a CPU has nothing to win
    counts = [fitting_tasks(loaded, RECIPE, tasks, free) for free in (10**3, 10**7, 2 * 10**7, 10**12)]
    assert counts[0] == 1 and counts[-1] == MOST and counts == sorted(counts) and counts[1] < counts[2]
    cut = RECIPE.model_copy(update={"max_length": 8})
    assert fitting_tasks(loaded, cut, tasks, 10**7) > counts[1]


def test_workers_share_passes_too(tasks: tuple[Task, ...], llama_base: Base, home: Home) -> None:
    few = tasks[:5]
    result = local_workers.run(few, llama_base, RECIPE, home, workers=2, device="cpu", tasks_per_batch=2)
    assert sorted(result.trained) == sorted(task.name for task in few)
