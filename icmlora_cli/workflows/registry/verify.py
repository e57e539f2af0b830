"""Verify: is everything in the registry what it was when it was written? And mend what is not."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from filelock import FileLock

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.upkeep.findings import Finding
from icmlora_cli.registry.upkeep.survey import Survey
from icmlora_cli.workflows.progress import OnProgress, Progress, silent
from icmlora_cli.workflows.registry.repair import Repair, repair_all

LOCK = ".repair.lock"


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

    repairs: tuple[Repair, ...] = ()
    with _one_repair(home) if repair else nullcontext():
        survey = Survey(home, quick, look)
        faults = survey.findings()
        remaining = sum(fault.severe for fault in faults)
        if repair and faults:
            repairs = repair_all(home, faults, device=device, on_progress=on_progress)
            remaining = _remaining(faults, repairs)
    return VerifyResult(faults, survey.checked, repairs, remaining, time.monotonic() - started)


@contextmanager
def _one_repair(home: Home) -> Iterator[None]:
    """Let one repair of a registry run at a time; the next one looks anew when the first has ended."""
    home.root.mkdir(parents=True, exist_ok=True)
    with FileLock(home.root / LOCK):
        yield


def _remaining(faults: Sequence[Finding], repairs: Sequence[Repair]) -> int:
    """Return how many severe faults are left: nothing was moved, or what was moved is not there again."""
    mended = {item.path for item in repairs if item.mended}
    return sum(fault.severe and fault.unit not in mended for fault in faults)
