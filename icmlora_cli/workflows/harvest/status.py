"""Reads from the registry which tasks are harvested or at work, whichever process works on them. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from icmlora_cli.disk.home import Home
from icmlora_cli.disk.leases import Worker, worker
from icmlora_cli.registry.adapters import MANIFEST, STATE
from icmlora_cli.registry.tasks import Task

State = Literal["done", "at work", "interrupted", "not begun"]


@dataclass(frozen=True)
class TaskStatus:
    """How far the harvest of a task is.

    Args:
        task: The name of the task.
        state: ``done`` where there is an adapter of its present examples or of earlier ones, and no worker is at work.
        worker: The process that is at work on it; None without one.
        saved_step: The step at which the state of an unfinished training was saved; None where none was.
    """

    task: str
    state: State
    worker: Worker | None
    saved_step: int | None


def run(tasks: Sequence[Task], base_slug: str, home: Home) -> tuple[TaskStatus, ...]:
    """Return the status of each task on a base, in order.

    Args:
        tasks: The tasks.
        base_slug: The name of the base's folder.
        home: The registry.
    """
    return tuple(_status(task.name, home.adapters / base_slug / task.name) for task in tasks)


def _status(name: str, folder: Path) -> TaskStatus:
    harvests = sorted(path for path in folder.glob("*") if path.is_dir())
    for path in harvests:
        if (holder := worker(path)) is not None:
            return TaskStatus(name, "at work", holder, _saved_step(path / STATE))
    if any((path / MANIFEST).is_file() for path in harvests):
        return TaskStatus(name, "done", None, None)
    steps = [step for path in harvests if (step := _saved_step(path / STATE)) is not None]
    return TaskStatus(name, "interrupted" if harvests else "not begun", None, max(steps, default=None))


def _saved_step(path: Path) -> int | None:
    try:
        with safe_open(path, framework="numpy") as source:
            return int((source.metadata() or {})["step"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
