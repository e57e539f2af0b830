"""Shows progress as bars on a terminal, and as lines now and then where stderr is a file or a pipe."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from icmlora_cli.report.shown import visible

if TYPE_CHECKING:
    from icmlora_cli.workflows.progress import OnProgress, Progress

LINE_EVERY = 15.0  # the least seconds between two lines of one item where there is no terminal


@contextmanager
def progress_display(*, quiet: bool) -> Iterator["OnProgress"]:
    """Yield a callback that shows progress on stderr.

    Args:
        quiet: Whether to show nothing at all.
    """
    if quiet:
        from icmlora_cli.workflows.progress import silent

        yield silent
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _lines()


def _lines() -> "OnProgress":
    last: dict[str, float] = {}
    begun: dict[str, tuple[float, float]] = {}  # when each stage was first seen, and how much of it was done then
    finished_lines: set[str] = set()

    def show(progress: "Progress") -> None:
        now = time.monotonic()
        key = f"{progress.stage} {progress.label}"
        share = _share(progress)
        since, before = begun.setdefault(progress.stage, (now, share))
        finished = progress.total > 0 and progress.done >= progress.total
        if not finished and now - last.get(key, now - LINE_EVERY + 1.0) < LINE_EVERY:
            last.setdefault(key, now)
            return
        last[key] = now
        items = f"[{progress.items_done}/{progress.items_total}] " if progress.items_total else ""
        line = f"{items}{progress.stage} {progress.label}: {_amount(progress)} {progress.detail}".rstrip()
        if finished and line in finished_lines:
            return  # the same thing is at hand, and was asked for again
        if finished:
            finished_lines.add(line)
        if share < 1.0 and share > before and now - since >= LINE_EVERY:
            line += f", {_left((now - since) * (1.0 - share) / (share - before))} left"
        print(visible(line), file=sys.stderr, flush=True)

    return show


def _share(progress: "Progress") -> float:
    """Return how much of a stage is done, 0 to 1."""
    share = min(1.0, progress.done / progress.total) if progress.total else 0.0
    if not progress.items_total:
        return share
    return (progress.items_done + (share if share < 1.0 else 0.0)) / progress.items_total  # a whole one counts as done


def _left(seconds: float) -> str:
    """Return a time that is left in words, in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _amount(progress: "Progress") -> str:
    if progress.stage == "download":
        total = f"/{progress.total / 1e6:.0f}" if progress.total else ""
        return f"{progress.done / 1e6:.0f}{total} MB"
    return f"{progress.done}/{progress.total}" if progress.total else str(progress.done)


def _bars() -> Iterator["OnProgress"]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        overall: dict[str, TaskID] = {}
        current: dict[str, tuple[str, TaskID]] = {}

        def show(progress: "Progress") -> None:
            if progress.items_total:
                if progress.stage not in overall:
                    overall[progress.stage] = bars.add_task(progress.stage, amount="", detail="", total=1.0)
                bars.update(
                    overall[progress.stage],
                    total=progress.items_total,
                    completed=_share(progress) * progress.items_total,
                    amount=f"{progress.items_done}/{progress.items_total}",
                )
            item = current.get(progress.stage)
            if item is None or item[0] != progress.label:
                if item is not None:
                    bars.remove_task(item[1])
                text = escape(visible(f"{progress.stage} {progress.label}"))
                item = (progress.label, bars.add_task(text, amount="", detail="", total=progress.total or None))
                current[progress.stage] = item
            bars.update(
                item[1],
                total=progress.total or None,
                completed=progress.done,
                amount=_amount(progress),
                detail=escape(visible(progress.detail)),
            )

        yield show
