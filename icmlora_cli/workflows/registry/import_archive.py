"""The ``registry import`` workflow: checks all of an archive, and then adds each thing in it whole or not at all."""

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
        thing: The task, adapter or generator.
        state: ``added``, ``unchanged`` (the registry had the same already) or ``replaced``.
        aside: The place in quarantine of what it replaced; None where it replaced nothing.
    """

    thing: Thing
    state: State
    aside: Path | None = None


@dataclass(frozen=True)
class ArchiveImportResult:
    """What became of an archive.

    Args:
        things: The tasks, adapters and generators in it.
        bases: For the base model of each adapter and generator, by name, whether it is on this machine with the same
            weights.
        landed: Whether the registry was changed; False for a dry run.
        seconds: The wall time in seconds.
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

    It is unpacked into a temporary folder and compared with its hashes and manifests; only then is each thing moved
    into the registry by one rename. What ``force`` replaces goes into quarantine.

    Args:
        home: The registry.
        archive: The path of the archive.
        force: Whether a different thing of the same name is replaced.
        dry_run: Whether the archive is only checked, and the registry left as it is.
        most: The most bytes that the archive may unpack to; None takes the reader's own limit.
        on_progress: Called for each file.

    Raises:
        AlreadyExistsError: If the registry has a different thing of the same name, and ``force`` is not set; nothing
            is imported then.
        CorruptFileError: If the archive is damaged or not what its listing says; nothing is imported then.
        IcmloraError: If one of its adapters is being harvested.
        NotFoundError: If there is no such file.
        OutOfSpaceError: If the disk is full.
    """
    started = time.monotonic()
    if not archive.is_file():
        hint = "icmlora registry export -o FILE"
        raise NotFoundError(f"there is no file {archive.name}", where=str(archive), hint=hint)
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
            archive, staging, most=most, on_listing=lambda listed: _check_names(home, listed, force), on_file=look
        )
        for thing in things:
            _check(archive, staging, thing)
        needed = _bases(home, staging, things)
        if dry_run:
            states = [ImportedThing(thing, _state(home, thing)) for thing in things]
            return ArchiveImportResult(tuple(states), needed, False, time.monotonic() - started)
        with _alone(home, things):
            _check_names(home, things, force)  # again, since something may have been added meanwhile
            landed = tuple(_land(home, staging, thing, archive) for thing in things)
        return ArchiveImportResult(landed, needed, True, time.monotonic() - started)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _state(home: Home, thing: Thing) -> State:
    """Return what importing a thing does, by comparing the registry's files with the archive's listing."""
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
    """Compare a thing with its own manifest, besides the archive's listing, which says less."""
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
    """Return the base models that adapters and generators need, and whether this machine has them."""
    hashes = {base.weight_hash for base in BaseStore(home).all()}
    available: dict[str, bool] = {}
    for thing in things:
        folder = staging / thing.folder
        if thing.kind == "adapter":
            record = adapters.read_record(folder / adapters.MANIFEST)
            available[_called(record.about.model_id or record.base)] = record.weight_hash in hashes
        elif thing.kind == "generator":
            base = GeneratorManifest.read(folder / "generator.json").base
            available[_called(base.name)] = base.weight_hash in hashes
    return available


def _called(name: object) -> str:
    """Return the alias of a base where it has one, since adapters name it by its hub id and generators by its alias."""
    return next((alias for alias, entry in ALIASES.items() if entry.model_id == name), str(name))


@contextmanager
def _alone(home: Home, things: Sequence[Thing]) -> Iterator[None]:
    """Check that none of the adapters is being harvested, and hold the lock of tasks where some are written.

    A harvest that begins on one of the adapters later finds its lease gone with the folder, and records nothing.

    Raises:
        IcmloraError: If another process holds the lock, or a lease.
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
    """Move a checked thing to its place in the registry; what it replaces goes into quarantine first."""
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
        ).thing
    os.replace(staging / thing.folder, target)
    files.sync_folder(target.parent)
    return ImportedThing(thing, state, aside)
