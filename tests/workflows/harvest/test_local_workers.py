"""Harvests side by side: what one would have made, each task once."""

import os

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.harvest import harvest, local_workers, status
from icmlora_cli.workflows.harvest.worker_progress import AggregateProgress
from icmlora_cli.workflows.progress import Progress

RECIPE = HarvestRecipe(steps=12, batch_size=4, learning_rate=3e-2, keep=1, rank=2)


def hashes(home: Home) -> dict[str, list[str]]:
    return {record.task: [item.sha256 for item in record.checkpoints] for record in AdapterStore(home).all()}


def test_two_workers_train_each_task_once(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    before = status.run(say_tasks, llama_base.slug, home)
    assert {item.state for item in before} == {"not begun"}
    said: list[Progress] = []
    result = local_workers.run(say_tasks, llama_base, RECIPE, home, workers=2, device="cpu", on_progress=said.append)
    assert sorted(result.trained) == sorted(task.name for task in say_tasks)
    assert [record.task for record in result.records] == [task.name for task in say_tasks]
    assert (said[-1].items_done, said[-1].items_total) == (3, 3)
    after = status.run(say_tasks, llama_base.slug, home)
    assert {(item.state, item.worker, item.saved_step) for item in after} == {("done", None, None)}
    shared = hashes(home)
    for task in say_tasks:
        AdapterStore(home).remove(task.name)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # as each worker had: sums depend on it
    harvest.run(say_tasks, llama_base, RECIPE, home, device="cpu")
    torch.set_num_threads(threads)
    assert hashes(home) == shared
    again = local_workers.run(say_tasks, llama_base, RECIPE, home, workers=2, device="cpu")
    assert again.trained == ()


def test_a_remark_of_a_worker_finishes_no_task(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    said: list[Progress] = []
    together = AggregateProgress(say_tasks, llama_base, RECIPE, AdapterStore(home), said.append)
    together(Progress("device", "memory of cuda:0 does not suffice", 1, 1))
    together(Progress("harvest", say_tasks[0].name, 12, 12))
    assert [(item.stage, item.items_done, item.items_total) for item in said] == [("device", 0, 0), ("harvest", 1, 3)]


def test_what_stops_a_worker_is_told(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 3e37})
    with pytest.raises(TrainingDivergedError, match=r"the loss is|the gradient's norm is nan"):
        local_workers.run(say_tasks, llama_base, recipe, home, workers=2, device="cpu")
    states = [item.state for item in status.run(say_tasks, llama_base.slug, home)]
    assert "interrupted" in states and "done" not in states
