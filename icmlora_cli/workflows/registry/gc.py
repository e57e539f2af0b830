"""The ``registry gc`` workflow: lists what can be freed, and frees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.registry.upkeep.duplicates import Duplicates, Linker
from icmlora_cli.registry.upkeep.garbage import WHATS, Garbage, GarbageItem, What, collect, free
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class GcResult:
    """What was freed.

    Args:
        freed: The things that were deleted, or replaced by a link.
        bytes: How many bytes this freed.
        kept: The copies that turned out not to be equal, or that cannot become links.
    """

    freed: tuple[GarbageItem, ...]
    bytes: int
    kept: tuple[GarbageItem, ...] = ()


def plan(home: Home, only: Sequence[str] | None = None, *, equal: Duplicates | None = None) -> Garbage:
    """Return what can be freed, without freeing it.

    Args:
        home: The registry.
        only: Some of the kinds ``temporary``, ``states``, ``quarantine``, ``vectors`` and ``duplicates``; None takes
            all of them.
        equal: The registry's equal checkpoints; None searches for them.

    Raises:
        UsageError: If there is no such kind.
    """
    known: dict[str, What] = {what: what for what in WHATS}
    for what in only or ():
        if what not in known:
            raise UsageError(f"there is no kind {what!r} of what can be freed", hint=f"--only with: {', '.join(WHATS)}")
    return collect(home, tuple(known[what] for what in only) if only else WHATS, equal)


def run(home: Home, planned: Garbage, *, on_progress: OnProgress = silent) -> GcResult:
    """Free what was planned and can still be freed, since a training may have begun in the meantime.

    A copy becomes a link only once it and the file that it equals have been read and compared with their manifests.

    Args:
        home: The registry.
        planned: What ``plan`` returned.
        on_progress: Called before each thing.
    """
    whats = list(dict.fromkeys(item.what for item in planned.free))
    still = {(item.what, item.path): item for item in plan(home, whats).free} if whats else {}
    items = [still[item.what, item.path] for item in planned.free if (item.what, item.path) in still]
    freed, kept, total, linker = [], dict[Path, GarbageItem](), 0, Linker()
    for index, item in enumerate(items):
        on_progress(Progress("gc", item.what, index, len(items), item.path.name))
        if item.copy is None:
            total += free(item)
            freed.append(item)
            continue
        linked = linker.link(item.copy)
        total += linked.bytes
        freed += [item] if linked.done else []
        kept |= {left.path: GarbageItem("duplicates", left.path, left.bytes, left.said) for left in linked.left}
    return GcResult(tuple(freed), total, tuple(kept.values()))
