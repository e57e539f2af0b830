"""The registered tasks. Each is in ``tasks/<name>/``, with its examples and its manifest, which is written last."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from icmlora_cli.config.task_list import without_lists
from icmlora_cli.disk import files, temporary
from icmlora_cli.disk.home import NAME, Home
from icmlora_cli.errors import AlreadyExistsError, CorruptFileError, IcmloraError, NotFoundError, SpecError
from icmlora_cli.manifests.task import Made, ReadAs
from icmlora_cli.provenance.versions import command_line, now, versions
from icmlora_cli.registry.task_record import (
    CHAT,
    EXAMPLES,
    IMAGE,
    IMAGES,
    MANIFEST,
    QA,
    TEXT,
    PromptTemplate,
    Task,
    data_hash,
)
from icmlora_cli.registry.upkeep.findings import REPAIR
from icmlora_cli.tasks.boxes import read_boxes
from icmlora_cli.tasks.examples import Example, Picture
from icmlora_cli.tasks.metrics import DETECTION_METRICS
from icmlora_cli.tasks.splits import PARTS, part_of
from icmlora_cli.tasks.task_file import BUILTIN_COUNT, BuiltinSource, DomainSource, TaskSpec

__all__ = ["CHAT", "IMAGE", "QA", "TEXT", "Draft", "PromptTemplate", "Task", "TaskStore", "builtin_spec", "draft"]

LOCK_SECONDS = 60.0  # for which a process waits while another one writes tasks
BUILTIN_MAKER = "made by icmlora"  # the source that built-in tasks state
BUILTIN_LICENCE = "apache-2.0"  # the licence of icmlora itself


@dataclass(frozen=True)
class Draft:
    """A task that could be registered.

    Args:
        task: the task; its ``folder`` means nothing before it is registered.
        text: the content of its ``examples.jsonl``.
        rule: the name of the rule by which rows became examples; None if there were no rows.
        not_read: the columns of those rows that no example holds.
        notes: lines that tell the user how the rows were read.
        pictures: the images of its examples.
    """

    task: Task
    text: str
    rule: str | None = None
    not_read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()


def draft(spec: TaskSpec, examples: Sequence[Example]) -> Draft:
    """Divide a task's examples into parts, and return the task that could be registered.

    Args:
        spec: the task, as a task file says it.
        examples: its examples; an example that is repeated counts once.

    Raises:
        SpecError: If the train or the test part would be empty, or the metric is of boxes and an answer has none.
    """
    splits = {"validation": spec.splits.validation, "test": spec.splits.test}
    ordered = sorted(dict.fromkeys(examples), key=lambda example: example.key)
    template = PromptTemplate.from_spec(spec.template)
    rows = [example.as_dict() | {"part": part_of(template.split_by(example), splits)} for example in ordered]
    counted = Counter(row["part"] for row in rows)
    empty = [part for part in PARTS if part != "validation" and not counted[part]]
    if empty:
        faults = [f"task {spec.name}: {part}: none of {len(rows)} different examples is in it" for part in empty]
        raise SpecError(
            f"task {spec.name} has no {' and no '.join(empty)} examples",
            faults,
            hint=f"give more {'passages' if template.kind == 'text' else 'examples with different inputs'}, "
            "or other shares: splits: {validation: 0.1, test: 0.3}",
        )
    if spec.metric in DETECTION_METRICS:
        without = sum(not read_boxes(example.output) for example in ordered)
        if without:
            faults = [
                f"task {spec.name}: metric: {spec.metric} is of boxes, and {without} of {len(rows)} answers hold none"
            ]
            hint = "answers such as cat<loc_1><loc_2><loc_30><loc_40>, or boxes: in place of output; or another metric"
            raise SpecError(f"the metric of task {spec.name} does not go with its examples", faults, hint=hint)
    licence, source = _about(spec)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    task = Task(
        name=spec.name,
        descriptions=spec.texts,
        template=template,
        metric=spec.metric,
        split=spec.split,
        licence=licence,
        source=source,
        family=spec.family,
        data_hash=data_hash(rows, template, spec.texts),
        counts={part: counted[part] for part in PARTS},
        folder=Path(),
        splits=splits,
        examples_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    pictures = {item.picture for item in ordered if item.picture is not None}
    return Draft(task, text, pictures=tuple(sorted(pictures)))


def _about(spec: TaskSpec) -> tuple[str | None, str | None]:
    """Return licence and source as the task file states them, or else those of its domain."""
    if not isinstance(spec.examples, DomainSource):
        return spec.licence, spec.source
    from icmlora_cli.tasks.domains import domain

    known = domain(spec.examples.domain)
    return spec.licence or known.licence, spec.source or known.source()


def builtin_spec(name: str) -> TaskSpec:
    """Return a built-in task, as a task file would say it.

    Raises:
        NotFoundError: If there is no built-in task of that name.
    """
    from icmlora_cli.tasks.builtin import builtin_names, builtin_task

    if name not in builtin_names():
        close = get_close_matches(name, builtin_names(), n=3)
        raise NotFoundError(
            f"there is no built-in task {name!r}" + (f"; close: {', '.join(close)}" if close else ""),
            hint="icmlora task builtins",
        )
    builtin = builtin_task(name)
    return TaskSpec(
        name=builtin.name,
        descriptions=tuple(builtin.descriptions),
        examples=BuiltinSource(builtin=name, count=BUILTIN_COUNT),
        split="unseen" if builtin.held_out else "train",
        family=builtin.family,
        licence=BUILTIN_LICENCE,
        source=BUILTIN_MAKER,
    )


@dataclass(frozen=True)
class TaskStore:
    """The tasks of a registry.

    Args:
        home: the folders of the registry.
    """

    home: Home

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock on the tasks within the body, so that no other process writes them meanwhile.

        Raises:
            IcmloraError: If another process has held the lock for too long.
        """
        self.home.tasks.mkdir(parents=True, exist_ok=True)
        path = self.home.tasks / ".lock"
        try:
            with FileLock(path, timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            raise IcmloraError(
                f"another icmlora has been writing tasks for {LOCK_SECONDS:.0f} s",
                where=str(path),
                hint="wait until it is done, then run the command again",
            ) from error

    def state(self, new: Draft, *, replace: bool = False) -> str:
        """Return what ``write`` would do with a draft: ``added``, ``unchanged`` or ``replaced``.

        Args:
            new: the draft.
            replace: whether another task of that name may be replaced.

        Raises:
            AlreadyExistsError: If the name is taken by something else, and ``replace`` is not set.
            CorruptFileError: If the name is taken by a damaged task, and ``replace`` is not set.
        """
        name = new.task.name
        same = next((other for other in self.names() if other != name and other.casefold() == name.casefold()), None)
        if same is not None:
            raise AlreadyExistsError(
                f"there is a task {same!r} already: on many disks {name!r} is the same folder",
                where=str(self.home.tasks / same),
                hint="give the new one a name that differs in more than its case",
            )
        if not (self.home.tasks / name).exists():
            return "added"
        try:
            if self.get(name).to_manifest() == new.task.to_manifest():
                return "unchanged"
        except CorruptFileError:
            if not replace:
                raise
        if not replace:
            raise AlreadyExistsError(
                f"there is a task {name!r} already, and it is not the same",
                where=str(self.home.tasks / name),
                hint="add it with --force to replace what is there, or give the new one another name",
            )
        return "replaced"

    def write(self, new: Draft, *, replace: bool = False) -> tuple[Task, str]:
        """Register a draft.

        Args:
            new: the draft.
            replace: whether another task of that name may be replaced.

        Returns:
            The task, and what was done, as ``state`` says it.

        Raises:
            AlreadyExistsError: If the name is taken by something else, and ``replace`` is not set.
            CorruptFileError: If the name is taken by a damaged task, and ``replace`` is not set.
        """
        with self.writing():
            state = self.state(new, replace=replace)
            folder = self.home.tasks / new.task.name
            if state != "unchanged":
                made = Made(created=now(), command=command_line(), versions=versions())
                if new.rule is not None:
                    made = made.model_copy(update={"examples": ReadAs(rule=new.rule, not_read=new.not_read)})
                with files.new_folder(folder) as temporary:
                    files.write_text(temporary / EXAMPLES, new.text)
                    if new.pictures:
                        files.write_all(temporary / IMAGES, ((item.name, item.read()) for item in new.pictures))
                    new.task.to_manifest().model_copy(update={"made": made}).write(temporary / MANIFEST)
            return dataclasses.replace(new.task, folder=folder), state

    def add(self, spec: TaskSpec, examples: Sequence[Example], *, replace: bool = False) -> tuple[Task, str]:
        """Register a task.

        Args:
            spec: the task, as a task file says it.
            examples: its examples.
            replace: whether another task of that name may be replaced.

        Returns:
            The task, and what was done: ``added``, ``unchanged`` (the same task was there) or ``replaced``.

        Raises:
            AlreadyExistsError: If the name is taken by something else, and ``replace`` is not set.
            CorruptFileError: If the name is taken by a damaged task, and ``replace`` is not set.
            SpecError: If the train or the test part would be empty.
        """
        return self.write(draft(spec, examples), replace=replace)

    def add_builtin(self, name: str) -> Task:
        """Register a built-in task, if it is not registered yet.

        Raises:
            AlreadyExistsError: If the name is taken by something else.
            NotFoundError: If there is no such built-in task.
        """
        from icmlora_cli.tasks.builtin import builtin_task

        spec = builtin_spec(name)
        return self.add(spec, builtin_task(name).examples(BUILTIN_COUNT, 0))[0]

    def names(self) -> tuple[str, ...]:
        """Return the names of all tasks, including damaged ones, sorted."""
        names = (path.name for path in self.home.tasks.glob("*/"))
        return tuple(sorted(name for name in names if NAME.fullmatch(name)))

    def get(self, name: str) -> Task:
        """Compare a task's examples with its manifest, and return the task.

        Raises:
            CorruptFileError: If the task is damaged.
            NotFoundError: If there is no task of that name.
        """
        folder = self.home.tasks / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            raise self._missing(name)
        try:
            task = Task.read(folder)
            is_intact = files.sha256_file(folder / EXAMPLES) == task.examples_sha256
        except FileNotFoundError as error:
            what = f"{Path(error.filename).name} is missing"
        except CorruptFileError as error:
            if error.hint:
                raise
            what = error.message
        else:
            if is_intact:
                return task
            what = "its examples are not those that were registered"
        raise CorruptFileError(
            f"task {name!r} is damaged: {what}",
            where=str(folder),
            hint=f"add it again with --force, or remove it: icmlora task remove {name} --yes",
        )

    def _missing(self, name: str) -> NotFoundError:
        from icmlora_cli.tasks.builtin import builtin_names

        close = get_close_matches(name, self.names(), n=3)
        hint = f"did you mean {' or '.join(close)}? all of them: icmlora task list" if close else "icmlora task list"
        if temporary.set_aside(self.home.tasks / name):
            hint = REPAIR
        elif name in builtin_names():
            hint = f"icmlora task add builtin:{name}"
        elif not self.names():
            hint = "there is no task yet; add some: icmlora task add 'builtin:*'"
        return NotFoundError(f"there is no task {name[:120]!r}", where=str(self.home.tasks), hint=hint)

    def all(self) -> tuple[Task, ...]:
        """Return all tasks, ordered by name.

        Raises:
            CorruptFileError: If a task is damaged.
        """
        return tuple(self.get(name) for name in self.names())

    def matching(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the tasks that match any of some patterns, sorted.

        Args:
            patterns: patterns of names, such as ``choose_*``, or of families, such as ``family:list``; or ``@LIST``, a
                file of them.

        Raises:
            CorruptFileError: If a pattern is of families and a task is damaged.
            NotFoundError: If a pattern matches nothing.
            SpecError: If a list has faults.
            UsageError: If there is no such list.
        """
        names, matched = self.names(), set[str]()
        for pattern in without_lists(patterns):
            family = pattern.removeprefix("family:")
            if family != pattern:
                hits = {task.name for task in self.all() if fnmatchcase(task.family or "", family)}
            else:
                hits = {name for name in names if fnmatchcase(name, pattern)}
            if not hits:
                raise self._missing(pattern)
            matched |= hits
        return tuple(sorted(matched))

    def select(self, patterns: Sequence[str] | None) -> tuple[Task, ...]:
        """Return the tasks that match any of some patterns, ordered by name.

        Args:
            patterns: patterns as ``matching`` takes them; None returns all tasks.

        Raises:
            CorruptFileError: If a task is damaged.
            NotFoundError: If a pattern matches nothing.
        """
        return self.all() if patterns is None else tuple(self.get(name) for name in self.matching(patterns))

    def remove(self, name: str) -> None:
        """Delete a task, which may be damaged. Its adapters stay.

        Raises:
            NotFoundError: If there is no task of that name.
        """
        folder = self.home.tasks / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            raise self._missing(name)
        with self.writing():
            files.delete_folder(folder)
