"""The evaluation's cells as a table: a row a task, a column a rung, and the means of seen and unseen tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Metric = Literal["exact_match", "nll"]


class CellLike(Protocol):
    """What a table needs of a cell."""

    @property
    def task(self) -> str: ...
    @property
    def seen(self) -> bool: ...
    @property
    def rung(self) -> str: ...
    @property
    def exact_match(self) -> float | None: ...
    @property
    def nll(self) -> float | None: ...


@dataclass(frozen=True)
class TextTable:
    """Headers and rows of text."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [" | ".join(self.headers), " | ".join("---" for _ in self.headers)]
        lines += [" | ".join(row) for row in self.rows]
        return "\n".join(f"| {line} |" for line in lines) + "\n"


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there, or None if none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def figure(value: float | None) -> str:
    """Return a figure with two decimals, or ``-``."""
    return "-" if value is None else f"{value:.2f}"


def ladder_table(cells: Sequence[CellLike], rungs: Sequence[str], metric: Metric) -> TextTable:
    """Lay the cells out.

    Args:
        cells: one a task and rung.
        rungs: the columns, in order.
        metric: which figure.

    Returns:
        Seen tasks, their mean, unseen tasks, their mean; each part only if it has tasks.
    """
    rows: list[tuple[str, ...]] = []
    for seen, label in ((True, "seen"), (False, "unseen")):
        part = [cell for cell in cells if cell.seen is seen]
        values = {(cell.task, cell.rung): getattr(cell, metric) for cell in part}
        tasks = list(dict.fromkeys(cell.task for cell in part))
        rows += [(task, label, *(figure(values[task, rung]) for rung in rungs)) for task in tasks]
        if len(tasks) > 1:
            means = (mean([values[task, rung] for task in tasks]) for rung in rungs)
            rows.append((f"mean of {len(tasks)}", label, *(figure(value) for value in means)))
    return TextTable(("task", "split", *rungs), tuple(rows))
