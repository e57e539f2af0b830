"""How all workflows report their progress; the commands show it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Progress:
    """One report of progress.

    Args:
        stage: The verb: ``download``, ``harvest``, ``train``, ``eval`` ...
        label: The name of what is worked on, such as a task.
        done: The units (steps, bytes, tasks) that are done, of ``total``.
        total: The units in all; 0 where that is unknown.
        detail: A short figure such as ``loss 0.123``.
        items_done: The whole items (tasks) that are done, of ``items_total``.
        items_total: The items in all; 0 where there is only one.
    """

    stage: str
    label: str
    done: int
    total: int
    detail: str = ""
    items_done: int = 0
    items_total: int = 0


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Ignore a report of progress; the default of all workflows."""


def notes_of_memory(on_progress: OnProgress) -> Callable[[str], None]:
    """Return a function that reports as progress that memory does not suffice for the rows of a pass."""
    return lambda text: on_progress(Progress("device", text, 1, 1))


def notes_of_vectors(on_progress: OnProgress) -> Callable[[str], None]:
    """Return a function that reports a remark on cached task vectors as progress, the same one only once."""

    @cache
    def note(text: str) -> None:
        on_progress(Progress("vectors", text, 1, 1))

    return note
