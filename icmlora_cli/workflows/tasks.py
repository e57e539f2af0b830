"""Adds, checks and exports tasks; all of them are checked before any is written."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from icmlora_cli.config.recipes import recipes_folder
from icmlora_cli.config.task_list import without_lists
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, NotFoundError, SpecError, UsageError
from icmlora_cli.registry.task_record import IMAGES
from icmlora_cli.registry.tasks import BUILTIN_LICENCE, BUILTIN_MAKER, Draft, Task, TaskStore, builtin_spec, draft
from icmlora_cli.tasks.detection_sets import METRIC, coco_tasks, voc_tasks
from icmlora_cli.tasks.drawn import drawn_tasks
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.sources import load_examples
from icmlora_cli.tasks.splits import DEFAULT_FRACTIONS, PARTS
from icmlora_cli.tasks.task_file import DrawnSource, TaskSpec, read_task_file
from icmlora_cli.workflows.output import check_file

BUILTIN, DRAWN, VOC, COCO = "builtin:", "drawn:", "voc:", "coco:"
T = TypeVar("T")


@dataclass(frozen=True)
class AddResult:
    """The tasks that were registered.

    Args:
        tasks: Each task, with ``added``, ``unchanged`` or ``replaced``.
        notes: Remarks on how examples were read.
    """

    tasks: tuple[tuple[Task, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedFile:
    """A task file without faults.

    Args:
        file: The path of the task file.
        tasks: The tasks that it would register.
        notes: Remarks on how examples were read.
    """

    file: Path
    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskExportResult:
    """The files that an export of tasks wrote.

    Args:
        file: The path of the task file.
        examples: The paths of the files with the examples.
        tasks: The names of the tasks.
    """

    file: Path
    examples: tuple[Path, ...]
    tasks: tuple[str, ...]


class _FaultList:
    """Collects the faults of several steps, so that one error lists all of them."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.hints: list[str] = []

    def of(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except SpecError as error:
            self.faults += error.faults
            self.hints += [error.hint] if error.hint else []
        except UsageError as error:
            self.faults.append(error.message + (f" (looked for at {error.where})" if error.where else ""))
            self.hints += [error.hint] if error.hint else []
        return None

    def settle(self, what: str) -> None:
        if self.faults:
            count = "one fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
            raise SpecError(f"{what}: {count}", self.faults, hint=next(iter(self.hints), None))


def add(home: Home, sources: Sequence[str], *, force: bool = False) -> AddResult:
    """Register tasks.

    Args:
        home: The registry.
        sources: Task files, the names of those that ship with icmlora (``tasks/domains``), ``builtin:NAME``,
            ``builtin:PATTERN``, ``builtin:family:NAME``, ``builtin:@LIST`` for those that a list names,
            ``drawn:PATTERN``, ``voc:FOLDER`` or ``coco:FILE``.
        force: Whether other tasks of the same names are replaced.

    Raises:
        AlreadyExistsError: If names are taken by other tasks and ``force`` is not set; nothing is written then.
        IcmloraError: If a dataset or an optional package is missing.
        NotFoundError: If a built-in task or family does not exist.
        SpecError: If a source has faults; the error lists those of all sources, and nothing is written.
        UsageError: If the only source is a file that does not exist, or there is no such list.
    """
    collected, drafts = _FaultList(), list[Draft]()
    for source in sources:
        path = _task_file(Path(source))
        if source.startswith(BUILTIN):
            patterns = without_lists([source.removeprefix(BUILTIN)])
            names = dict.fromkeys(name for pattern in patterns for name in builtins_matching(pattern))
            specs = tuple(builtin_spec(name) for name in names)
        elif source.startswith(DRAWN):
            specs = drawn_specs(source.removeprefix(DRAWN))
        elif source.startswith((VOC, COCO)):
            form, _, rest = source.partition(":")
            path = Path(rest)
            reader = voc_tasks if f"{form}:" == VOC else coco_tasks
            specs = collected.of(partial(reader, path)) or ()
        elif len(sources) == 1:
            specs = _read(path)
        else:
            specs = collected.of(partial(_read, path)) or ()
        drafts += _drafts(specs, path, collected)
    twice = _repeated([item.task.name for item in drafts])
    collected.faults += [f"task {name} is given twice (case does not count)" for name in twice]
    collected.settle("nothing was added")
    store = TaskStore(home)
    _check_names(store, drafts, force)
    notes = tuple(f"{item.task.name}: {note}" for item in drafts for note in item.notes)
    return AddResult(tuple(store.write(item, replace=force) for item in drafts), notes)


def _task_file(path: Path) -> Path:
    """Return the path, or the task file of that name that ships with icmlora, such as ``tasks/domains``."""
    shipped = recipes_folder() / path.parent / f"{path.stem}.yaml"
    return shipped if path.parent == Path("tasks") and not path.exists() and shipped.is_file() else path


def _read(path: Path) -> tuple[TaskSpec, ...]:
    try:
        return read_task_file(path)
    except UsageError as error:
        from icmlora_cli.tasks.builtin import builtin_names

        if str(path) not in builtin_names():
            raise
        raise UsageError(error.message, where=error.where, hint=f"icmlora task add {BUILTIN}{path}") from error


def _drafts(specs: Sequence[TaskSpec], file: Path, collected: _FaultList) -> list[Draft]:
    drafts = (collected.of(partial(_draft, spec, file)) for spec in specs)
    return [item for item in drafts if item is not None]


def _draft(spec: TaskSpec, file: Path) -> Draft:
    loaded = load_examples(spec, file.parent, file)
    return replace(draft(spec, loaded.examples), rule=loaded.rule, not_read=loaded.not_read, notes=loaded.told())


def _repeated(names: Sequence[str]) -> list[str]:
    """Return the names that occur twice; case does not count, as on some file systems."""
    counted = Counter(name.casefold() for name in names)
    return sorted({name for name in names if counted[name.casefold()] > 1})


def _check_names(store: TaskStore, drafts: Sequence[Draft], force: bool) -> None:
    taken = []
    for item in drafts:
        try:
            store.state(item, replace=force)
        except AlreadyExistsError as error:
            taken.append(error)
            if len(drafts) == 1:
                raise
    if taken:
        names = ", ".join(Path(str(error.where)).name for error in taken)
        raise AlreadyExistsError(
            f"{len(taken)} of {len(drafts)} tasks are registered already with other content: {names}",
            where=str(store.home.tasks),
            hint="nothing was added; add them with --force to replace what is there",
        )


def builtins_matching(pattern: str) -> tuple[str, ...]:
    """Return the names of the built-in tasks that match ``NAME``, a pattern such as ``*``, or ``family:NAME``.

    Raises:
        NotFoundError: If there is none.
    """
    from icmlora_cli.tasks.builtin import builtin_names, builtin_task

    family = pattern.removeprefix("family:")
    if family != pattern:
        matching = [name for name in builtin_names() if fnmatchcase(builtin_task(name).family, family)]
        known = sorted({builtin_task(name).family for name in builtin_names()})
    else:
        matching, known = [name for name in builtin_names() if fnmatchcase(name, pattern)], list(builtin_names())
    if not matching:
        what = "family of built-in tasks" if family != pattern else "built-in task"
        close = get_close_matches(family, known, n=3)
        raise NotFoundError(
            f"there is no {what} {family!r}" + (f"; close: {', '.join(close)}" if close else ""),
            hint="icmlora task builtins",
        )
    return tuple(matching)


def drawn_specs(pattern: str) -> tuple[TaskSpec, ...]:
    """Return the tasks of the drawn detection set that match ``NAME`` or a pattern such as ``*_busy``.

    Raises:
        NotFoundError: If there is none.
    """
    tasks = {name: task for name, task in drawn_tasks().items() if fnmatchcase(name, pattern)}
    if not tasks:
        close = get_close_matches(pattern, list(drawn_tasks()), n=3)
        raise NotFoundError(
            f"there is no drawn task {pattern!r}" + (f"; close: {', '.join(close)}" if close else ""),
            hint="icmlora task add 'drawn:*', or for example drawn:small_star",
        )
    return tuple(
        TaskSpec(
            name=f"find_{name}",
            descriptions=task.descriptions,
            template="image",
            examples=DrawnSource(drawn=name),
            metric=METRIC,
            family=f"find_{task.ground}",
            licence=BUILTIN_LICENCE,
            source=BUILTIN_MAKER,
        )
        for name, task in sorted(tasks.items())
    )


def validate(paths: Sequence[Path]) -> tuple[CheckedFile, ...]:
    """Check task files and their examples, without registering anything.

    Raises:
        IcmloraError: If a dataset or an optional package is missing.
        SpecError: If a file has faults; the error lists those of all files.
    """
    collected, checked = _FaultList(), []
    for path in paths:
        path = _task_file(path)
        specs = collected.of(partial(read_task_file, path)) or ()
        drafts = _drafts(specs, path, collected)
        notes = tuple(f"{item.task.name}: {note}" for item in drafts for note in item.notes)
        checked.append(CheckedFile(path, tuple(item.task for item in drafts), notes))
    collected.settle("not valid")
    return tuple(checked)


def export(store: TaskStore, patterns: Sequence[str], file: Path, *, force: bool = False) -> TaskExportResult:
    """Write tasks as a task file, with their examples as JSONL in the folder ``<stem>-examples`` beside it.

    Adding that file again gives tasks of the same ``data_hash``.

    Args:
        store: The registered tasks.
        patterns: Names of tasks, or patterns of names.
        file: The task file to write, ``.yaml``.
        force: Whether existing files are replaced.

    Raises:
        AlreadyExistsError: If a file exists and ``force`` is not set; nothing is written then.
        CorruptFileError: If a task is damaged.
        NotFoundError: If a pattern matches nothing.
        UsageError: If a task has no examples.
    """
    tasks = store.select(patterns)
    bare = [task.name for task in tasks if not task.has_examples]
    if bare:
        raise UsageError(
            f"{', '.join(bare)}: known by description alone, with no examples for a task file",
            hint="name the tasks to export, without these",
        )
    check_file(file, force)
    folder = file.with_name(f"{file.stem}-examples")
    targets = {task.name: folder / f"{task.name}.jsonl" for task in tasks}
    for path in targets.values():
        check_file(path, force)
    for task in tasks:
        examples = [example for part in PARTS for example in task.examples(part)]
        for picture in {item.picture for item in examples if item.picture is not None}:
            files.write_bytes(folder / IMAGES / picture.name, picture.read())
        rows = [_row(task, example) for example in examples]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files.write_text(targets[task.name], "".join(lines))
    specs = [_spec(task, f"{folder.name}/{task.name}.jsonl") for task in tasks]
    text: str = yaml.safe_dump({"tasks": specs}, sort_keys=False, allow_unicode=True, width=1000)
    files.write_text(file, text)
    return TaskExportResult(file, tuple(targets.values()), tuple(task.name for task in tasks))


def _row(task: Task, example: Example) -> dict[str, str]:
    if task.template.kind == "text":
        return {"text": example.output}
    image = {} if example.picture is None else {"image": f"{IMAGES}/{example.picture.name}"}
    return example.as_dict() | image


def _spec(task: Task, examples: str) -> dict[str, object]:
    spec: dict[str, object] = {
        "name": task.name,
        "descriptions": list(task.descriptions),
        "examples": examples,
        "template": task.template.to_spec(),
        "metric": task.metric,
        "split": task.split,
    }
    if dict(task.splits) != dict(DEFAULT_FRACTIONS):
        spec["splits"] = dict(task.splits)
    known = {"family": task.family, "licence": task.licence, "source": task.source}
    return spec | {key: value for key, value in known.items() if value is not None}
