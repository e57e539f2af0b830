"""The one way in which a workflow tells how far it is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report of progress.

    Args:
        stage: the verb: ``download``, ``harvest``, ``train``, ``eval`` ...
        label: what is worked on, such as a task's name.
        done: units done of ``total`` (steps, bytes, tasks).
        total: units in all; 0 where unknown.
        detail: a short figure such as ``loss 0.123``.
        items_done: whole items (tasks) done of ``items_total``.
        items_total: items in all; 0 where there is only one.
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
    """Ignore a report of progress."""
