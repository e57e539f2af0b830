"""A survey of a registry: every file is looked at, and every fault told with its cost and what mends it."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from icmlora_cli.disk import files, leases
from icmlora_cli.disk.home import NAME, Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.notes import Thing
from icmlora_cli.manifests.remains import read_remains
from icmlora_cli.registry import adapters, generators, task_record
from icmlora_cli.registry.tasks import BUILTIN_MAKER
from icmlora_cli.registry.upkeep import checks, survey_cache, survey_leftovers
from icmlora_cli.registry.upkeep.checks import Flaw
from icmlora_cli.registry.upkeep.findings import NOT_USED, REPAIR, Finding
from icmlora_cli.registry.upkeep.leftovers import QUARANTINE

OnThing = Callable[[str, str], None]
ROOT = {"tasks", "adapters", "generators", "results", "baselines", "logs", QUARANTINE}


@dataclass(frozen=True)
class Survey:
    """Looks through a registry.

    Args:
        home: the registry.
        quick: compare sizes, not hashes.
        on_thing: told of each thing that is looked at: what it is, and its name.
        checked: what was looked at: kind to how many.
    """

    home: Home
    quick: bool
    on_thing: OnThing
    checked: dict[str, int] = field(default_factory=dict, hash=False)

    def findings(self) -> tuple[Finding, ...]:
        """Return all faults, the severe ones first."""
        found = [
            *self._strangers(self.home.root, self._known),
            *self._tasks(),
            *self._adapters(),
            *self._generators(),
            *survey_cache.base_findings(self.home, self.look, quick=self.quick),
            *survey_cache.baseline_findings(self.home, self.look),
            *survey_cache.result_findings(self.home, self.look),
            *survey_cache.vector_findings(self.home, self.look),
            *survey_leftovers.temporary_findings(self.home),
            *survey_leftovers.state_findings(self.home),
            *survey_leftovers.quarantine_findings(self.home),
        ]
        return tuple(sorted(found, key=lambda fault: not fault.severe))

    def _known(self, path: Path) -> bool:
        """Tell whether something in the root is icmlora's; the cache may be in there too."""
        cache = self.home.cache
        cached = (self.home.bases, self.home.vectors, self.home.served)
        return path.name in ROOT or path in cached or cache.is_relative_to(path)

    def look(self, thing: str, name: str) -> None:
        """Count a thing that is looked at, and tell of it."""
        self.checked[thing] = self.checked.get(thing, 0) + 1
        self.on_thing(thing, name)

    def _tasks(self) -> Iterator[Finding]:
        yield from self._strangers(self.home.tasks, _is_named_folder)
        for folder in _named(self.home.tasks):
            self.look("task", folder.name)
            for flaw in checks.task_flaws(folder, folder.name, quick=self.quick):
                cost = "the task cannot be used until it is added again; its adapters stay"
                yield of_thing(flaw, "task", folder.name, folder, cost, f"{REPAIR} && {_task_again(folder)}")

    def _adapters(self) -> Iterator[Finding]:
        yield from self._strangers(self.home.adapters, Path.is_dir)
        for base in files.subfolders(self.home.adapters):
            yield from self._strangers(base, Path.is_dir)
            for task in files.subfolders(base):
                yield from self._strangers(task, Path.is_dir)
                for folder in files.subfolders(task):
                    yield from self._adapter(folder)

    def _adapter(self, folder: Path) -> Iterator[Finding]:
        task, base = folder.parent.name, folder.parent.parent.name
        working = leases.worker(folder) is not None  # asked first: who has finished since has written the manifest
        again = f"icmlora harvest --tasks {shlex.quote(task)}"
        if not (folder / adapters.MANIFEST).is_file() and (
            (folder / adapters.STATE).is_file() or not any(folder.glob("checkpoint-*"))
        ):
            if not working:
                what = "a harvest that was cut short: there is no manifest"
                cost = "nothing that was saved: the harvest goes on from there"
                yield Finding("half-written", "adapter", task, folder, what, cost, again, severe=False)
            return
        if not (folder / adapters.MANIFEST).is_file() and working:
            return  # its manifest may be written this moment
        self.look("adapter", f"{base}/{task}")
        for flaw in checks.adapter_flaws(folder, base, task, folder.name, quick=self.quick):
            cost = f"training and evaluation with task {task!r} refuse it, until it is made again{_took(folder)}"
            yield of_thing(flaw, "adapter", task, folder, cost, _adapter_mend(folder))

    def _generators(self) -> Iterator[Finding]:
        yield from self._strangers(
            self.home.generators, lambda path: _is_named_folder(path) or path.name.endswith(generators.STATE)
        )
        for folder in _named(self.home.generators):
            self.look("generator", folder.name)
            again = _typed(folder / generators.CONFIG, "train") or f"icmlora train --name {folder.name}"
            for flaw in checks.generator_flaws(folder, quick=self.quick):
                cost = f"gen and eval refuse it until it is trained again{_took(folder)}"
                yield of_thing(flaw, "generator", folder.name, folder, cost, f"{REPAIR} && {again}")

    def _strangers(self, folder: Path, known: Callable[[Path], bool]) -> Iterator[Finding]:
        """Yield what lies where icmlora put nothing; it stays there."""
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.name.startswith(".") and not known(path):
                mend = "move it elsewhere if it is yours: icmlora did not write it"
                yield Finding("unlisted", "file", path.name, path, "nothing lists it", NOT_USED, mend, severe=False)


def of_thing(flaw: Flaw, thing: Thing, name: str, folder: Path, cost: str, mend: str) -> Finding:
    """Return the fault that a flaw of a thing is.

    Args:
        flaw: what is wrong with one of its files.
        thing: what it is.
        name: of the thing.
        folder: all of it; a repair moves it.
        cost: what is lost while it is so.
        mend: the command.
    """
    if flaw.kind == "unlisted":
        return Finding(flaw.kind, thing, name, flaw.path, flaw.what, NOT_USED, REPAIR, False, "quarantine", flaw.path)
    if flaw.path.name == generators.CARD:
        cost = "its card only; what it generates is not touched"
        return Finding(
            flaw.kind, thing, name, flaw.path, flaw.what, cost, "restore the card, or leave it", severe=False
        )
    return Finding(flaw.kind, thing, name, flaw.path, flaw.what, cost, mend, True, "quarantine", folder)


def _named(folder: Path) -> list[Path]:
    return [path for path in files.subfolders(folder) if NAME.fullmatch(path.name)]


def _is_named_folder(path: Path) -> bool:
    return path.is_dir() and NAME.fullmatch(path.name) is not None


def _adapter_mend(folder: Path) -> str:
    """Return what mends an adapter; one that was imported cannot be harvested again."""
    with suppress(OSError, CorruptFileError):
        record = adapters.read_record(folder / adapters.MANIFEST)
        if record.imported is not None:
            return f"{REPAIR} && {adapters.again(record)}"
    return f"{REPAIR}   (it quarantines, then harvests again)"


def _task_again(folder: Path) -> str:
    """Return the command that adds a task again, as far as its manifest can still be read."""
    from icmlora_cli.tasks.builtin import builtin_names

    source = read_remains(folder / task_record.MANIFEST).source
    if source in (None, BUILTIN_MAKER) and folder.name in builtin_names():
        return f"icmlora task add builtin:{folder.name}"
    return _typed(folder / task_record.MANIFEST, "task add") or "icmlora task add FILE.yaml"


def _typed(manifest: Path, verb: str) -> str | None:
    """Return the command that made a thing, if its manifest says it and it is one of ``verb``."""
    command = read_remains(manifest).made_by
    return command if command is not None and command.startswith(f"icmlora {verb}") else None


def _took(folder: Path) -> str:
    """Return how long making it took, if its manifest can still be read."""
    for manifest in (folder / adapters.MANIFEST, folder / generators.CONFIG):
        seconds = read_remains(manifest).seconds
        if seconds is not None:
            return f", which took {seconds:.0f} s"
    return ""
