"""Export: tasks, adapters and generators as one file."""

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
    """An archive, written.

    Args:
        file: where it is.
        things: what is in it.
        bytes: of the archive.
        seconds: wall time.
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
    """Write tasks, adapters and generators into one file, each once it has been found whole.

    Args:
        home: the registry.
        output: the file to write.
        tasks: names or patterns of tasks.
        adapters_of: names or patterns of the tasks whose adapters are written.
        generators_named: names or patterns of generators. With none of the three, everything is written.
        force: replace ``output``.
        on_progress: told of each thing.

    Raises:
        AlreadyExistsError: if ``output`` is there, and ``force`` is not set.
        CorruptFileError: if a thing is damaged, or changes meanwhile.
        NotFoundError: if a pattern matches nothing.
        OutOfSpaceError: if the disk is full; ``output`` is then what it was before.
        UsageError: if there is nothing to write.
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
    found = _matching({record.task for record in records}, patterns, "adapter", home.adapters, everything=everything)
    return [("adapter", record.folder) for record in records if record.task in found]


def _generators(home: Home, patterns: Sequence[str] | None, *, everything: bool) -> Chosen:
    if patterns is None:
        return []
    names = GeneratorStore(home).names()
    found = _matching(names, patterns, "generator", home.generators, everything=everything)
    return [("generator", home.generators / name) for name in sorted(found)]


def _matching(names: Iterable[str], patterns: Sequence[str], what: str, where: Path, *, everything: bool) -> set[str]:
    known, found = sorted(names), set[str]()
    for pattern in patterns:
        hits = {name for name in known if fnmatchcase(name, pattern)}
        if not hits and not everything:
            there = ", ".join(known[:20]) or "none"
            raise NotFoundError(f"no {what} matches {pattern!r}", where=str(where), hint=f"there are: {there}")
        found |= hits
    return found


def _whole(home: Home, kind: Kind, folder: Path) -> Thing:
    """Return a thing with its files and hashes.

    Raises:
        CorruptFileError: if it is damaged. What nothing lists is no fault here: it is left out.
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
    kept = [path for path in folder.rglob("*") if path.is_file() and _belongs(kind, folder, path)]
    return thing_of(kind, home.root, folder, kept)


def _belongs(kind: Kind, folder: Path, path: Path) -> bool:
    within = path.relative_to(folder).as_posix()
    if kind == "adapter" and path.parent != folder:
        listed = {item.folder for item in adapters.read_record(folder / adapters.MANIFEST).checkpoints}
        if path.parent.name not in listed:
            return False
    return FILES[kind].fullmatch(within) is not None
