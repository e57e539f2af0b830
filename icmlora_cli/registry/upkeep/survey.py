"""A survey of a registry, which looks at every file and returns a finding for everything that is wrong."""

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
    """A look through a registry, as ``registry verify`` takes it.

    Args:
        home: the folders of the registry.
        quick: whether to compare sizes instead of hashes.
        on_thing: called for each thing that is looked at, with its kind and its name.
        checked: the number of things of each kind that were looked at.
    """

    home: Home
    quick: bool
    on_thing: OnThing
    checked: dict[str, int] = field(default_factory=dict, hash=False)

    def findings(self) -> tuple[Finding, ...]:
        """Return all findings, the severe ones first."""
        results = [
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
        return tuple(sorted(results, key=lambda finding: not finding.severe))

    def _known(self, path: Path) -> bool:
        """Tell whether icmlora made something in the root, which the cache may be in too."""
        cache = self.home.cache
        cached = (self.home.bases, self.home.vectors, self.home.served)
        return path.name in ROOT or path in cached or cache.is_relative_to(path)

    def look(self, thing: str, name: str) -> None:
        """Count a thing that is looked at, and report it."""
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
        # the lease is read first: a worker that finishes after that has written the manifest
        working = leases.worker(folder) is not None
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
            return  # the worker may be about to write its manifest
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
        """Yield a finding for each entry of a folder that icmlora did not write; a repair leaves it in place."""
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.name.startswith(".") and not known(path):
                mend = "move it elsewhere if it is yours: icmlora did not write it"
                yield Finding("unlisted", "file", path.name, path, "nothing lists it", NOT_USED, mend, severe=False)


def of_thing(flaw: Flaw, thing: Thing, name: str, folder: Path, cost: str, mend: str) -> Finding:
    """Return the finding for a flaw of a thing.

    Args:
        flaw: what is wrong with one of the thing's files.
        thing: the kind of thing.
        name: the name of the thing.
        folder: the thing's folder, which a repair moves.
        cost: what the user loses by it, in words.
        mend: the command that mends it.
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
    """Return the command that mends an adapter; an imported adapter has to be imported again."""
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
    """Return the command that made a thing, if its manifest has one that starts with ``icmlora`` and ``verb``."""
    command = read_remains(manifest).made_by
    return command if command is not None and command.startswith(f"icmlora {verb}") else None


def _took(folder: Path) -> str:
    """Return a phrase that says how long it took to make a thing; empty if its manifest cannot be read."""
    for manifest in (folder / adapters.MANIFEST, folder / generators.CONFIG):
        seconds = read_remains(manifest).seconds
        if seconds is not None:
            return f", which took {seconds:.0f} s"
    return ""
