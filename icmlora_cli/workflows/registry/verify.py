"""The ``registry verify`` workflow: checks that everything is as it was written, and repairs what is not."""

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
    """The findings of a verification, and the repairs.

    Args:
        faults: The findings, the severe ones first.
        checked: How many things of each kind were checked.
        repairs: The steps that were taken to mend the findings; empty without ``repair``.
        remaining: The number of severe findings that are not mended.
        seconds: The wall time in seconds.
    """

    faults: tuple[Finding, ...]
    checked: Mapping[str, int]
    repairs: tuple[Repair, ...]
    remaining: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no severe finding remains."""
        return self.remaining == 0


def run(
    home: Home,
    *,
    quick: bool = False,
    repair: bool = False,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> VerifyResult:
    """Check every file of a registry, and on demand repair what is wrong.

    Args:
        home: The registry.
        quick: Whether only sizes are compared, and no hashes.
        repair: Whether what was set aside is put back, what is damaged goes into quarantine, and adapters are
            harvested again.
        device: The torch device on which adapters are harvested again; None takes a GPU where there is one.
        on_progress: Called for each thing that is checked, and after each step of a harvest.

    Raises:
        OutOfSpaceError: If the disk is full; what was not repaired by then is as it was.
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
    """Let one repair of a registry run at a time; a second one waits, and then checks the registry by itself."""
    home.root.mkdir(parents=True, exist_ok=True)
    with FileLock(home.root / LOCK):
        yield


def _remaining(faults: Sequence[Finding], repairs: Sequence[Repair]) -> int:
    """Return how many severe findings no repair has mended."""
    mended = {item.path for item in repairs if item.mended}
    return sum(fault.severe and fault.unit not in mended for fault in faults)
