"""Chooses the tasks that a command works on, by the patterns of the command line. Imports no torch."""

from collections.abc import Sequence

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.tasks import Task, TaskStore


def tasks_to_learn(home: Home, patterns: Sequence[str] | None) -> tuple[Task, ...]:
    """Return the tasks to harvest: those that the patterns match, or without patterns all of split ``train``.

    Raises:
        NotFoundError: If a pattern matches nothing.
        UsageError: If no task is left, or a task that a pattern names has no examples.
    """
    store = TaskStore(home)
    tasks = store.select(patterns)
    bare = [task.name for task in tasks if not task.has_examples]
    if patterns and bare:
        raise _no_examples(bare, "train on")
    chosen = tasks if patterns else tuple(task for task in tasks if task.split == "train" and task.has_examples)
    if not chosen:
        raise UsageError(
            "no task is registered",
            where=str(home.tasks),
            hint="icmlora task add builtin:pick_last_of_3, or a task file",
        )
    return chosen


def tasks_to_score(home: Home, patterns: Sequence[str] | None) -> tuple[Task, ...]:
    """Return the tasks to evaluate: those that the patterns match, or without patterns all that have examples.

    Raises:
        NotFoundError: If a pattern matches nothing.
        UsageError: If a task that a pattern names has no examples.
    """
    tasks = TaskStore(home).select(patterns)
    bare = [task.name for task in tasks if not task.has_examples]
    if patterns and bare:
        raise _no_examples(bare, "score")
    return tuple(task for task in tasks if task.has_examples)


def _no_examples(names: Sequence[str], what: str) -> UsageError:
    return UsageError(
        f"{', '.join(names)}: known by description alone, with no examples to {what}",
        hint="give it examples: icmlora task add FILE.yaml --force with a task of that name",
    )


def tasks_to_train(
    home: Home, base: str, patterns: Sequence[str] | None, *, episodes: bool = False
) -> tuple[Task, ...]:
    """Return the tasks to train a generator on: those named, or by default all of split ``train`` with an adapter.

    Args:
        home: The registry.
        base: The name of the base model.
        patterns: Names of tasks, or patterns of names; None or an empty list takes the default.
        episodes: Whether the training has episodes; the default then includes tasks without an adapter, and no task
            at all is no error.

    Raises:
        NotFoundError: If a pattern matches nothing.
        UsageError: If nothing was harvested for the base.
    """
    tasks = TaskStore(home).select(patterns)
    if patterns:
        return tasks
    if episodes:
        return tuple(
            task for task in tasks if task.split == "train" and task.template.kind != "text" and task.has_examples
        )
    harvested = {record.task for record in AdapterStore(home).all(BaseStore(home).slug(base))}
    chosen = tuple(task for task in tasks if task.split == "train" and task.name in harvested)
    if not chosen:
        raise UsageError(
            f"there is no harvested adapter of a registered task for {base}",
            where=str(home.adapters),
            hint="icmlora harvest",
        )
    return chosen
