"""The ``registry export`` workflow: writes tasks, adapters and generators into one archive."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError, UsageError
from icmlora_cli.registry import adapters, generators
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.registry.upkeep import checks
from icmlora_cli.registry.upkeep.archive import FILES, Kind, Thing, thing_of, write_archive
from icmlora_cli.registry.upkeep.findings import REPAIR
from icmlora_cli.workflows.output import check_file
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class ArchiveExportResult:
    """An archive that was written.

    Args:
        file: The path of the archive.
        things: The tasks, adapters and generators in it.
        bytes: The size of the archive in bytes.
        seconds: The wall time in seconds.
    """

    file: Path
    things: tuple[Thing, ...]
    bytes: int
    seconds: float


def run(
    home: Home,
    output: Path,
    *,
    tasks: Sequence[str] | None = None,
    adapters_of: Sequence[str] | None = None,
    generators_named: Sequence[str] | None = None,
    force: bool = False,
    on_progress: OnProgress = silent,
) -> ArchiveExportResult:
    """Write tasks, adapters and generators into one file, after each was checked to be whole.

    Args:
        home: The registry.
        output: The file to write.
        tasks: Names or patterns of tasks.
        adapters_of: Names or patterns of the tasks whose adapters are written.
        generators_named: Names or patterns of generators. If none of the three is given, everything is written.
        force: Whether ``output`` is replaced if it exists.
        on_progress: Called before each task, adapter and generator.

    Raises:
        AlreadyExistsError: If ``output`` exists and ``force`` is not set.
        CorruptFileError: If something to write is damaged, or changes meanwhile.
        NotFoundError: If a pattern matches nothing.
        OutOfSpaceError: If the disk is full; ``output`` is then what it was before.
        UsageError: If there is nothing to write.
    """
    started = time.monotonic()
    check_file(output, force)
    everything = tasks is None and adapters_of is None and generators_named is None
    patterns = ["*"] if everything else None
    chosen = _tasks(home, tasks or patterns, everything=everything)
    chosen += _adapters(home, adapters_of or patterns, everything=everything)
    chosen += _generators(home, generators_named or patterns, everything=everything)
    if not chosen:
        raise UsageError("there is nothing to export", where=str(home.root), hint="icmlora task add, icmlora harvest")
    things = []
    for index, (kind, folder) in enumerate(chosen):
        on_progress(Progress("export", f"{kind} {folder.name}", index, len(chosen)))
        things.append(_whole(home, kind, folder))
    on_progress(Progress("export", output.name, len(chosen), len(chosen)))
    files.write_with(output, lambda temporary: write_archive(temporary, home.root, things))
    return ArchiveExportResult(output, tuple(things), output.stat().st_size, time.monotonic() - started)


Chosen = list[tuple[Kind, Path]]


def _tasks(home: Home, patterns: Sequence[str] | None, *, everything: bool) -> Chosen:
    store = TaskStore(home)
    if patterns is None or (everything and not store.names()):
        return []
    return [("task", home.tasks / name) for name in store.matching(patterns)]


def _adapters(home: Home, patterns: Sequence[str] | None, *, everything: bool) -> Chosen:
    if patterns is None:
        return []
    records = AdapterStore(home).all()
    matching = _matching({record.task for record in records}, patterns, "adapter", home.adapters, everything=everything)
    return [("adapter", record.folder) for record in records if record.task in matching]


def _generators(home: Home, patterns: Sequence[str] | None, *, everything: bool) -> Chosen:
    if patterns is None:
        return []
    names = GeneratorStore(home).names()
    matching = _matching(names, patterns, "generator", home.generators, everything=everything)
    return [("generator", home.generators / name) for name in sorted(matching)]


def _matching(names: Iterable[str], patterns: Sequence[str], what: str, where: Path, *, everything: bool) -> set[str]:
    known, matching = sorted(names), set[str]()
    for pattern in patterns:
        hits = {name for name in known if fnmatchcase(name, pattern)}
        if not hits and not everything:
            names_known = ", ".join(known[:20]) or "none"
            raise NotFoundError(f"no {what} matches {pattern!r}", where=str(where), hint=f"there are: {names_known}")
        matching |= hits
    return matching


def _whole(home: Home, kind: Kind, folder: Path) -> Thing:
    """Return a task, adapter or generator with its files and hashes; files that it does not list are left out.

    Raises:
        CorruptFileError: If it is damaged.
    """
    if kind == "task":
        flaws = checks.task_flaws(folder, folder.name)
    elif kind == "adapter":
        flaws = checks.adapter_flaws(folder, folder.parent.parent.name, folder.parent.name, folder.name)
    else:
        flaws = checks.generator_flaws(folder)
    bad = [flaw for flaw in flaws if flaw.kind != "unlisted" and flaw.path.name != generators.CARD]
    if bad:
        raise CorruptFileError(
            f"{kind} {folder.relative_to(home.root)} is damaged: {bad[0].path.name}: {bad[0].what}",
            where=str(bad[0].path),
            hint=REPAIR,
        )
    paths = [path for path in folder.rglob("*") if path.is_file() and _belongs(kind, folder, path)]
    return thing_of(kind, home.root, folder, paths)


def _belongs(kind: Kind, folder: Path, path: Path) -> bool:
    within = path.relative_to(folder).as_posix()
    if kind == "adapter" and path.name != adapters.MANIFEST:
        record = adapters.read_record(folder / adapters.MANIFEST)
        listed = {item.folder for item in record.checkpoints}
        if path.parent != folder and path.parent.name not in listed:
            return False
        if path.parent == folder and record.sensitivity is None:
            return False
    return FILES[kind].fullmatch(within) is not None
