"""The registered tasks: ``tasks/<name>/`` with the examples and, last of all, the manifest."""

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

from icmlora_cli.disk import files, temporary
from icmlora_cli.disk.home import NAME, Home
from icmlora_cli.errors import AlreadyExistsError, CorruptFileError, IcmloraError, NotFoundError, SpecError
from icmlora_cli.manifests.task import Made, ReadAs
from icmlora_cli.provenance.versions import command_line, now, versions
from icmlora_cli.registry.task_record import CHAT, EXAMPLES, MANIFEST, QA, TEXT, PromptTemplate, Task, data_hash
from icmlora_cli.registry.upkeep.findings import REPAIR
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.splits import PARTS, part_of
from icmlora_cli.tasks.task_file import BUILTIN_COUNT, BuiltinSource, DomainSource, TaskSpec

__all__ = ["CHAT", "QA", "TEXT", "Draft", "PromptTemplate", "Task", "TaskStore", "builtin_spec", "draft"]

LOCK_SECONDS = 60.0
BUILTIN_MAKER = "made by icmlora"  # what built-in tasks name as their source
BUILTIN_LICENCE = "apache-2.0"  # icmlora's own


@dataclass(frozen=True)
class Draft:
    """A task that could be registered.

    Args:
        task: what it would be; its folder is where nothing is yet.
        text: what ``examples.jsonl`` would hold.
        rule: the name of the rule by which rows became examples; None where there were no rows.
        not_read: columns of those rows that no example holds.
        notes: what there is to say of how they were read.
    """

    task: Task
    text: str
    rule: str | None = None
    not_read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def draft(spec: TaskSpec, examples: Sequence[Example]) -> Draft:
    """Divide a task's examples into parts, and describe the result.

    Args:
        spec: the task.
        examples: its examples; repeated ones count once.

    Raises:
        SpecError: If the train or the test part would be empty.
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
    return Draft(task, text)


def _about(spec: TaskSpec) -> tuple[str | None, str | None]:
    """Return licence and source: the task file's own words, else what is known of a domain."""
    if not isinstance(spec.examples, DomainSource):
        return spec.licence, spec.source
    from icmlora_cli.tasks.domains import domain

    known = domain(spec.examples.domain)
    return spec.licence or known.licence, spec.source or known.source()


def builtin_spec(name: str) -> TaskSpec:
    """Return the spec of a built-in task.

    Raises:
        NotFoundError: If there is none of that name.
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
        home: where they are.
    """

    home: Home

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one that writes tasks.

        Raises:
            IcmloraError: If another process has been writing for too long.
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

    def state(self, wanted: Draft, *, replace: bool = False) -> str:
        """Return what writing a draft would do: ``added``, ``unchanged`` or ``replaced``.

        Raises:
            AlreadyExistsError: If the name is taken by something else, and ``replace`` is not set.
            CorruptFileError: If the name is taken by a damaged task, and ``replace`` is not set.
        """
        name = wanted.task.name
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
            if self.get(name).to_manifest() == wanted.task.to_manifest():
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

    def write(self, wanted: Draft, *, replace: bool = False) -> tuple[Task, str]:
        """Register a draft; see ``state`` for what is returned and raised."""
        with self.writing():
            state = self.state(wanted, replace=replace)
            folder = self.home.tasks / wanted.task.name
            if state != "unchanged":
                made = Made(created=now(), command=command_line(), versions=versions())
                if wanted.rule is not None:
                    made = made.model_copy(update={"examples": ReadAs(rule=wanted.rule, not_read=wanted.not_read)})
                with files.new_folder(folder) as temporary:
                    files.write_text(temporary / EXAMPLES, wanted.text)
                    wanted.task.to_manifest().model_copy(update={"made": made}).write(temporary / MANIFEST)
            return dataclasses.replace(wanted.task, folder=folder), state

    def add(self, spec: TaskSpec, examples: Sequence[Example], *, replace: bool = False) -> tuple[Task, str]:
        """Register a task.

        Args:
            spec: the task.
            examples: its examples.
            replace: replace another task of that name.

        Returns:
            The task, and ``added``, ``unchanged`` (the same was there) or ``replaced``.

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
        """Return the names of all tasks, damaged ones too, sorted."""
        found = (path.name for path in self.home.tasks.glob("*/"))
        return tuple(sorted(name for name in found if NAME.fullmatch(name)))

    def get(self, name: str) -> Task:
        """Return a task, once its examples have been compared with its manifest.

        Raises:
            CorruptFileError: If it is damaged.
            NotFoundError: If there is none of that name.
        """
        folder = self.home.tasks / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            raise self._missing(name)
        try:
            task = Task.read(folder)
            whole = files.sha256_file(folder / EXAMPLES) == task.examples_sha256
        except FileNotFoundError as error:
            what = f"{Path(error.filename).name} is missing"
        except CorruptFileError as error:
            if error.hint:
                raise
            what = error.message
        else:
            if whole:
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
        """Return all tasks, by name.

        Raises:
            CorruptFileError: If one is damaged.
        """
        return tuple(self.get(name) for name in self.names())

    def matching(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the names that match a pattern such as ``choose_*`` or ``family:list``, sorted.

        Raises:
            CorruptFileError: If families are asked for and a task is damaged.
            NotFoundError: If a pattern matches nothing.
        """
        names, found = self.names(), set[str]()
        for pattern in patterns:
            family = pattern.removeprefix("family:")
            if family != pattern:
                hits = {task.name for task in self.all() if fnmatchcase(task.family or "", family)}
            else:
                hits = {name for name in names if fnmatchcase(name, pattern)}
            if not hits:
                raise self._missing(pattern)
            found |= hits
        return tuple(sorted(found))

    def select(self, patterns: Sequence[str] | None) -> tuple[Task, ...]:
        """Return the tasks that match any of the patterns, by name; all tasks for None.

        Raises:
            CorruptFileError: If one is damaged.
            NotFoundError: If a pattern matches nothing.
        """
        return self.all() if patterns is None else tuple(self.get(name) for name in self.matching(patterns))

    def remove(self, name: str) -> None:
        """Remove a task, damaged or not. Adapters harvested for it stay.

        Raises:
            NotFoundError: If there is none of that name.
        """
        folder = self.home.tasks / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            raise self._missing(name)
        with self.writing():
            files.delete_folder(folder)
