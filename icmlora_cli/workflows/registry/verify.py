"""Verify: is everything in the registry what it was when it was written? And mend what is not."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.upkeep.findings import Finding
from icmlora_cli.registry.upkeep.survey import Survey
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class Repair:
    """One step of a repair.

    Args:
        action: ``restored`` (an old folder is under its name again), ``quarantined`` (moved to ``to``), ``harvested``,
            ``added`` (a built-in task), or ``left`` (nothing was done; ``said`` says why).
        thing: what was repaired.
        name: of the thing.
        path: what was mended or moved.
        to: where it is now; None where it has not moved.
        said: what was done, and where there is something left to type, the command.
        mended: the thing can be used again.
    """

    action: Literal["restored", "quarantined", "harvested", "added", "left"]
    thing: str
    name: str
    path: Path
    to: Path | None
    said: str
    mended: bool

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return vars(self) | {"path": str(self.path), "to": None if self.to is None else str(self.to)}


@dataclass(frozen=True)
class VerifyResult:
    """What a verification found.

    Args:
        faults: what is wrong, the severe ones first.
        checked: kind of thing to how many were looked at.
        repairs: what was done about the faults; nothing without ``repair``.
        remaining: severe faults that are there still.
        seconds: wall time.
    """

    faults: tuple[Finding, ...]
    checked: Mapping[str, int]
    repairs: tuple[Repair, ...]
    remaining: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing severe is wrong (any more)."""
        return self.remaining == 0


def run(
    home: Home,
    *,
    quick: bool = False,
    repair: bool = False,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> VerifyResult:
    """Look at every file of a registry, and on demand repair what is wrong.

    Args:
        home: the registry.
        quick: compare sizes, not hashes.
        repair: put back what was set aside, move what is damaged into quarantine, and harvest adapters again.
        device: where adapters are harvested again.
        on_progress: told of each thing that is looked at, and of each step of a harvest.

    Raises:
        OutOfSpaceError: if the disk is full; what was not repaired by then is as it was.
    """
    started = time.monotonic()

    def look(thing: str, name: str) -> None:
        on_progress(Progress("verify", thing, sum(survey.checked.values()), 0, name))

    survey = Survey(home, quick, look)
    faults = survey.faults()
    repairs: tuple[Repair, ...] = ()
    remaining = sum(fault.severe for fault in faults)
    if repair and faults:
        from icmlora_cli.workflows.registry.repair import repair_all  # which imports this module

        repairs = repair_all(home, faults, device=device, on_progress=on_progress)
        remaining = _remaining(faults, repairs)
    return VerifyResult(faults, survey.checked, repairs, remaining, time.monotonic() - started)


def _remaining(faults: Sequence[Finding], repairs: Sequence[Repair]) -> int:
    """Return how many severe faults are left: nothing was moved, or what was moved is not there again."""
    mended = {item.path for item in repairs if item.mended}
    return sum(fault.severe and fault.unit not in mended for fault in faults)
