"""All the built-in tasks, by name and by family."""

from collections.abc import Callable
from functools import cache

from icmlora_cli.tasks.builtin import (
    arithmetic,
    bilingual,
    calendar_names,
    cases,
    categories,
    counting,
    dates,
    extraction,
    formats,
    letters,
    lists,
    morphology,
    numbers,
    odd_one_out,
    ordering,
    sentiment,
    sequences,
    times,
    units,
)
from icmlora_cli.tasks.builtin.dense import every as dense_every
from icmlora_cli.tasks.builtin.types import BuiltinTask

_BUILDERS: tuple[Callable[[], tuple[BuiltinTask, ...]], ...] = (
    lists.tasks,
    letters.tasks,
    cases.tasks,
    ordering.tasks,
    counting.tasks,
    numbers.tasks,
    arithmetic.tasks,
    dates.tasks,
    calendar_names.tasks,
    times.tasks,
    units.tasks,
    morphology.tasks,
    odd_one_out.tasks,
    categories.tasks,
    extraction.tasks,
    formats.tasks,
    sentiment.tasks,
    bilingual.tasks,
    sequences.tasks,
)


@cache
def _catalog() -> dict[str, BuiltinTask]:
    return {task.name: task for build in _BUILDERS for task in build()}


def builtin_names() -> tuple[str, ...]:
    """Return the names of all built-in tasks, in a stable order."""
    return tuple(_catalog())


def builtin_task(name: str) -> BuiltinTask:
    """Look up a built-in task.

    Args:
        name: One of ``builtin_names()``.

    Returns:
        The task; an unknown name raises ``KeyError``.
    """
    return _catalog()[name]


@cache
def dense_tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of meta-training: all that are not held out, and the further ones of every family.

    Returns:
        The curated tasks first, then the further ones, in a stable order; names are unique, and no further task
        computes what a held-out one does.
    """
    seen = tuple(task for task in _catalog().values() if not task.held_out)
    return (*seen, *dense_every.further_tasks())


def families() -> dict[str, tuple[str, ...]]:
    """Return the names of the tasks of each family."""
    found: dict[str, tuple[str, ...]] = {}
    for task in _catalog().values():
        found[task.family] = (*found.get(task.family, ()), task.name)
    return found
