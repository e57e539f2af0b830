"""Gc: say what can be freed, and free it."""

from collections.abc import Sequence
from dataclasses import dataclass

from icmlora_cli.errors import UsageFault
from icmlora_cli.registry.garbage import WHATS, Garbage, Item, What, collect, free
from icmlora_cli.registry.home import Home
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class GcResult:
    """What was freed.

    Args:
        freed: each thing that was deleted.
        bytes: of all of them.
    """

    freed: tuple[Item, ...]
    bytes: int


def plan(home: Home, only: Sequence[str] | None = None) -> Garbage:
    """Return what can be freed; deletes nothing.

    Args:
        home: the registry.
        only: some of ``temporary``, ``states``, ``quarantine``, ``vectors``; all of them for None.

    Raises:
        UsageFault: if there is no such kind.
    """
    known: dict[str, What] = {what: what for what in WHATS}
    for what in only or ():
        if what not in known:
            raise UsageFault(f"there is no kind {what!r} of what can be freed", hint=f"--only with: {', '.join(WHATS)}")
    return collect(home, tuple(known[what] for what in only) if only else WHATS)


def run(home: Home, planned: Garbage, *, on_progress: OnProgress = silent) -> GcResult:
    """Delete what was planned and can be freed still: a training may have begun while somebody was asked.

    Args:
        home: the registry.
        planned: what ``plan`` returned.
        on_progress: told of each thing.
    """
    still = {item.path for item in plan(home).free}
    items = [item for item in planned.free if item.path in still]
    freed, total = [], 0
    for index, item in enumerate(items):
        on_progress(Progress("gc", item.what, index, len(items), item.path.name))
        total += free(item)
        freed.append(item)
    return GcResult(tuple(freed), total)
