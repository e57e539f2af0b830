"""Import: what an export archive holds, once all of it has been checked; each thing lands whole or not at all."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icmlora_cli.disk import files, leases, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, IcmloraError, NotFoundError
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.registry import adapters
from icmlora_cli.registry.bases import ALIASES, BaseStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.registry.upkeep import checks, quarantine
from icmlora_cli.registry.upkeep.archive import Thing, broken
from icmlora_cli.registry.upkeep.archive_reader import unpack
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

State = Literal["added", "unchanged", "replaced"]


@dataclass(frozen=True)
class ImportedThing:
    """One thing of an archive.

    Args:
        thing: what it is.
        state: ``added``, ``unchanged`` (the same was there) or ``replaced``.
        aside: where what it replaced is now; None where it replaced nothing.
    """

    thing: Thing
    state: State
    aside: Path | None = None


@dataclass(frozen=True)
class ArchiveImportResult:
    """An archive, imported.

    Args:
        things: what was in it.
        bases: base model of an adapter or generator, as it names it, to whether it is here with those weights.
        landed: False for a dry run.
        seconds: wall time.
    """

    things: tuple[ImportedThing, ...]
    bases: dict[str, bool]
    landed: bool
    seconds: float


def run(
    home: Home,
    archive: Path,
    *,
    force: bool = False,
    dry_run: bool = False,
    most: int | None = None,
    on_progress: OnProgress = silent,
) -> ArchiveImportResult:
    """Import an archive.

    It is unpacked into a temporary folder of the registry, every file compared with its hash and every thing with its
    own manifest. Only then does anything land, one rename a thing. What ``force`` replaces goes into quarantine.

    Args:
        home: the registry.
        archive: the file.
        force: replace a different thing of the same name.
        dry_run: check all of it, and leave the registry as it is.
        most: bytes that it may unpack to.
        on_progress: told of each file.

    Raises:
        AlreadyExistsError: if a different thing of the same name is there, and ``force`` is not set; nothing landed.
        CorruptFileError: if the archive is damaged or not what it says; nothing has landed then.
        IcmloraError: if one of its adapters is being harvested.
        NotFoundError: if there is no such file.
        OutOfSpaceError: if there is no room.
    """
    started = time.monotonic()
    if not archive.is_file():
        raise NotFoundError(
            f"there is no file {archive.name}", where=str(archive), hint="icmlora registry export -o FILE"
        )
    done = 0

    def look(name: str) -> None:
        nonlocal done
        done += 1
        on_progress(Progress("import", archive.name, done, 0, name))

    home.root.mkdir(parents=True, exist_ok=True)
    staging = temporary.beside(home.root / "import")
    staging.mkdir()
    try:
        things = unpack(
            archive, staging, most=most, on_listing=lambda found: _check_names(home, found, force), on_file=look
        )
        for thing in things:
            _check(archive, staging, thing)
        needed = _bases(home, staging, things)
        if dry_run:
            states = [ImportedThing(thing, _state(home, thing)) for thing in things]
            return ArchiveImportResult(tuple(states), needed, False, time.monotonic() - started)
        with _alone(home, things):
            _check_names(home, things, force)  # again: something may have come meanwhile
            landed = tuple(_land(home, staging, thing, archive) for thing in things)
        return ArchiveImportResult(landed, needed, True, time.monotonic() - started)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _state(home: Home, thing: Thing) -> State:
    """Return what importing a thing does, by the files that are there."""
    folder = home.root / thing.folder
    unfinished = thing.kind == "adapter" and folder.is_dir() and not (folder / adapters.MANIFEST).exists()
    if unfinished or not os.path.lexists(folder):
        return "added"
    for item in thing.files:
        path = folder / item.path
        if not path.is_file() or path.stat().st_size != item.bytes or files.sha256_file(path) != item.sha256:
            return "replaced"
    return "unchanged"


def _check_names(home: Home, things: Sequence[Thing], force: bool) -> None:
    taken = [f"{thing.kind} {thing.name}" for thing in things if not force and _state(home, thing) == "replaced"]
    if taken:
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        raise AlreadyExistsError(
            f"there is something else by the name of {', '.join(taken[:3])}{more}; nothing was imported",
            where=str(home.root),
            hint="--force to replace it; what is there now goes into quarantine",
        )


def _check(archive: Path, staging: Path, thing: Thing) -> None:
    """Compare a thing with its own manifest, which no archive's listing can stand in for."""
    folder = staging / thing.folder
    if thing.kind == "task":
        flaws = checks.task_flaws(folder, folder.name)
    elif thing.kind == "adapter":
        flaws = checks.adapter_flaws(folder, *thing.name.split("/"))
    else:
        flaws = checks.generator_flaws(folder)
    if flaws:
        raise broken(archive, f"{thing.kind} {thing.name}: {flaws[0].path.name}: {flaws[0].what}")


def _bases(home: Home, staging: Path, things: Sequence[Thing]) -> dict[str, bool]:
    """Return the base models that the adapters and generators need, and whether they are at hand."""
    hashes = {base.weight_hash for base in BaseStore(home).all()}
    found: dict[str, bool] = {}
    for thing in things:
        folder = staging / thing.folder
        if thing.kind == "adapter":
            record = adapters.read_record(folder / adapters.MANIFEST)
            found[_called(record.about.model_id or record.base)] = record.weight_hash in hashes
        elif thing.kind == "generator":
            base = GeneratorManifest.read(folder / "generator.json").base
            found[_called(base.name)] = base.weight_hash in hashes
    return found


def _called(name: object) -> str:
    """Return the one name of a base, which adapters name by its hub id and generators by its alias."""
    return next((alias for alias, entry in ALIASES.items() if entry.model_id == name), str(name))


@contextmanager
def _alone(home: Home, things: Sequence[Thing]) -> Iterator[None]:
    """Hold the lock of tasks where some are written, once no adapter of the archive is at work.

    A harvest that begins on one of them later finds its lease gone with the folder, and records nothing.

    Raises:
        IcmloraError: if another process holds the lock, or a lease.
    """
    for thing in things:
        worker = leases.worker(home.root / thing.folder) if thing.kind == "adapter" else None
        if worker is not None:
            raise IcmloraError(
                f"process {worker.pid} on {worker.host} harvests adapter {thing.name}",
                where=str(home.root),
                hint="wait for it, or stop it",
            )
    with TaskStore(home).writing() if any(thing.kind == "task" for thing in things) else nullcontext():
        yield


def _land(home: Home, staging: Path, thing: Thing, archive: Path) -> ImportedThing:
    """Move a checked thing to its place; what was there goes into quarantine first."""
    state, target, aside = _state(home, thing), home.root / thing.folder, None
    if state == "unchanged":
        return ImportedThing(thing, state)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.sync_tree(staging / thing.folder)
    if os.path.lexists(target):
        aside = quarantine.put(
            home,
            target,
            f"replaced by what {archive.name} holds",
            reason="replaced",
            thing=thing.kind,
            name=thing.name,
        )
    os.replace(staging / thing.folder, target)
    files.sync_folder(target.parent)
    return ImportedThing(thing, state, aside)
