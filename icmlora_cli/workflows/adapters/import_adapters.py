"""Import: foreign PEFT LoRAs, checked whole before anything is written, stand in the registry beside harvested ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home, checked_name
from icmlora_cli.errors import AlreadyExistsError, IcmloraError, NotFoundError, UnsupportedAdapterError, UsageError
from icmlora_cli.lm.adapter_base import adapter_base
from icmlora_cli.manifests.adapter import AdapterAbout, Imported, ImportedFile
from icmlora_cli.provenance import local_paths
from icmlora_cli.provenance.versions import command_line, now, versions
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore, checkpoint_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.described import described, name_of
from icmlora_cli.registry.tasks import Draft, Task, TaskStore
from icmlora_cli.weights.adapter import Adapter, write_adapter
from icmlora_cli.weights.foreign.config import CONFIG, LoraSettings
from icmlora_cli.weights.foreign.open import AdapterBase, open_foreign
from icmlora_cli.weights.foreign.project import AdapterPart, represent
from icmlora_cli.workflows.adapters.sources import FoundAdapter, find_sources
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

VERSION = 1  # of what an import makes of an adapter; part of every key
SPARE = 1 << 30  # bytes that an adapter on the hub may have beyond twice its base's


@dataclass(frozen=True)
class ImportRequest:
    """What to import, and how strictly.

    Args:
        source: a PEFT folder, a folder of such folders, or a hub id.
        task: name of the task that it is for.
        describe: that task in words; makes one without examples where there is none of that name.
        approximate: fit or drop what no LoRA can hold.
        rank: The rank of the fits; None takes the adapter's own.
        allow_pickle: read ``adapter_model.bin``, with ``weights_only=True``.
        any_base_name: take it though its configuration names another base; shapes must fit all the same.
        offline: fetch nothing.
    """

    source: str
    task: str | None = None
    describe: str | None = None
    approximate: bool = False
    rank: int | None = None
    allow_pickle: bool = False
    any_base_name: bool = False
    offline: bool = False


@dataclass(frozen=True)
class ImportedAdapter:
    """One adapter of the registry that was imported.

    Args:
        record: what the registry holds.
        state: ``imported``, or ``unchanged`` where the very same was there.
        parts: What became of the parts of each checkpoint, by the name of its folder.
        notes: what is worth a second look.
    """

    record: AdapterRecord
    state: str
    parts: Mapping[str, tuple[AdapterPart, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AdapterImportResult:
    """What an import did.

    Args:
        items: one a task.
        described: name of the task that was made from a description; None where none was.
    """

    items: tuple[ImportedAdapter, ...]
    described: str | None


@dataclass(frozen=True)
class _Checked:
    """A foreign adapter that can be held."""

    found: FoundAdapter
    settings: LoraSettings
    parts: tuple[AdapterPart, ...]
    hashes: Mapping[str, str]
    adapter: Adapter | None  # None once it has been checked and will be read again, so that memory holds one at a time
    notes: tuple[str, ...]


def run(request: ImportRequest, base: Base, home: Home, *, on_progress: OnProgress = silent) -> AdapterImportResult:
    """Import foreign adapters.

    Several of one source become the checkpoints of one adapter of the task that is named; without ``task`` and
    ``describe``, each is for the registered task that its folder is named after.

    Args:
        request: what and how.
        base: the base that they are for.
        home: the registry.
        on_progress: told of each adapter.

    Raises:
        AlreadyExistsError: if the described task's name is another task's.
        CorruptFileError: if an adapter is damaged; nothing is written then.
        NotFoundError: if there is no adapter (or the hub does not hand it out) or no such task.
        OutOfSpaceError: if the disk is full.
        UnsupportedAdapterError: if one is of another format, or more than a LoRA; nothing is written then.
        UsageError: if it is not said which task an adapter is for, or the rank is not one.
        WrongBaseError: if one is for another base; nothing is written then.
    """
    if request.rank is not None and request.rank < 1:
        raise UsageError(f"--rank is {request.rank}, and a fit has at least rank 1", hint="--rank 16")
    _check_names(request, TaskStore(home))
    found = find_sources(
        request.source,
        allow_pickle=request.allow_pickle,
        offline=request.offline,
        most=2 * base.bytes + SPARE,
        on_progress=on_progress,
    )
    groups, draft = _grouped(request, found, TaskStore(home))
    work = _AdapterImport(request, base, AdapterStore(home), on_progress)
    checked = work.check(found)
    if draft is not None:
        TaskStore(home).write(draft)
    items = tuple(work.write(task, [checked[item] for item in own]) for task, own in groups)
    return AdapterImportResult(items, None if draft is None else draft.task.name)


def _check_names(request: ImportRequest, store: TaskStore) -> None:
    """Check what is asked for before anything is fetched."""
    if request.task is not None:
        checked_name(request.task, "task")
        if request.describe is None and request.task not in store.names():
            raise NotFoundError(
                f"there is no task {request.task!r}",
                where=str(store.home.tasks),
                hint='icmlora task add ..., or say it in words: --describe "what the adapter does"',
            )


def _grouped(
    request: ImportRequest, found: Sequence[FoundAdapter], store: TaskStore
) -> tuple[list[tuple[Task, Sequence[FoundAdapter]]], Draft | None]:
    """Return the tasks with their adapters, and the task to make, if one is."""
    if request.describe is not None:
        return _for_described(request, found, store)
    if request.task is not None:
        return [(store.get(request.task), found)], None
    if len(found) == 1:
        raise UsageError(
            "it is not said which task the adapter is for",
            where=str(found[0].folder),
            hint='--task NAME of a registered task, or --describe "what the adapter does"',
        )
    unknown = [item.name for item in found if item.name not in store.names()]
    if unknown:
        raise UsageError(
            f"{len(unknown)} of {len(found)} folders are not named after a registered task: {', '.join(unknown[:5])}",
            where=request.source,
            hint="name one task for all of them with --task or --describe (as its checkpoints), or add the tasks first",
        )
    return [(store.get(item.name), [item]) for item in found], None


def _for_described(
    request: ImportRequest, found: Sequence[FoundAdapter], store: TaskStore
) -> tuple[list[tuple[Task, Sequence[FoundAdapter]]], Draft | None]:
    assert request.describe is not None
    name = request.task or name_of(request.describe)
    source = f"imported adapter {found[0].source}"
    draft = described(name, request.describe, licence=found[0].licence, source=source)
    if name not in store.names():
        return [(draft.task, found)], draft
    known = store.get(name)
    if draft.task.descriptions[0] not in known.descriptions:
        raise AlreadyExistsError(
            f"there is a task {name!r} already, with another description: {known.descriptions[0][:80]!r}",
            where=str(known.folder),
            hint=f"--task {name} without --describe for that one, or --task OTHER_NAME --describe ... for a new one",
        )
    return [(known, found)], None


@dataclass
class _AdapterImport:
    """The import of some adapters for one base."""

    request: ImportRequest
    base: Base
    store: AdapterStore
    on_progress: OnProgress

    @cached_property
    def for_base(self) -> AdapterBase:
        """The base, as adapters are checked against it."""
        return adapter_base(self.base)

    def check(self, found: Sequence[FoundAdapter]) -> dict[FoundAdapter, _Checked]:
        """Return all adapters, or say what is wrong with those that are."""
        checked: dict[FoundAdapter, _Checked] = {}
        faults: list[tuple[FoundAdapter, IcmloraError]] = []
        for index, item in enumerate(found):
            try:
                one = self._one(item)
            except IcmloraError as error:
                faults.append((item, error))
            else:
                checked[item] = one if len(found) == 1 else replace(one, adapter=None)
            self.on_progress(Progress("check", item.name, index + 1, len(found)))
        if len(faults) == 1:
            raise faults[0][1]
        if faults:
            told = "".join(f"\n  {item.name}: {error.message}" for item, error in faults)
            raise UnsupportedAdapterError(
                f"nothing was imported: {len(faults)} of {len(found)} adapters cannot be{told}",
                where=self.request.source,
                hint=faults[0][1].hint,
            )
        return checked

    def _one(self, found: FoundAdapter) -> _Checked:
        base, request = self.for_base, self.request
        foreign = open_foreign(
            found.folder, base, any_base_name=request.any_base_name, allow_pickle=request.allow_pickle
        )
        adapter, parts = represent(
            foreign, base.shapes, base.weight_of, base.model_id, approximate=request.approximate, rank=request.rank
        )
        hashes = {"sha256": foreign.sha256, "config_sha256": files.sha256_file(found.folder / CONFIG)}
        return _Checked(found, foreign.settings, parts, hashes, adapter, foreign.notes)

    def write(self, task: Task, checked: Sequence[_Checked]) -> ImportedAdapter:
        """Put a task's adapters into the registry as the checkpoints of one, the manifest last."""
        key = self._key(checked)
        names = _checkpoints(checked)
        parts = {name: item.parts for name, item in zip(names, checked, strict=True)}
        notes = tuple(dict.fromkeys(note for item in checked for note in self._notes(item)))
        known = self.store.find(self.base.slug, task.name, key)
        if known is not None:
            return ImportedAdapter(known, "unchanged", parts, notes)
        target = self.store.folder(self.base.slug, task.name, key)
        with files.new_folder(target) as folder:
            for name, item in zip(names, checked, strict=True):
                adapter = item.adapter or self._one(item.found).adapter
                assert adapter is not None
                write_adapter(folder / name, adapter, self.for_base.shapes, revision=self.base.revision)
                self.on_progress(Progress("import", task.name, names.index(name) + 1, len(names)))
            record = self._record(task, key, folder, names, checked)
            self.store.record(record)
        record = replace(record, folder=target)
        return ImportedAdapter(record, "imported", parts, notes)

    def _key(self, checked: Sequence[_Checked]) -> str:
        inexact = any(part.kept != "exact" for item in checked for part in item.parts)
        how = ["approximate", self.request.rank] if inexact else []
        return files.sha256_json(["import", VERSION, self.base.weight_hash, how, [dict(i.hashes) for i in checked]])[
            :12
        ]

    def _notes(self, item: _Checked) -> list[str]:
        notes = list(item.notes)
        if not item.settings.base_model:
            notes.append(f"{item.found.name} does not say which base it is for; its shapes fit {self.base.name}")
        wanted, own = item.settings.revision, self.base.revision
        if wanted and own and wanted != own and not own.startswith(wanted):
            notes.append(f"{item.found.name} was trained on revision {wanted} of the base, and here it is {own}")
        if item.found.licence is None:
            notes.append(f"{item.found.name} names no licence")
        return notes

    def _record(
        self, task: Task, key: str, folder: Path, names: Sequence[str], checked: Sequence[_Checked]
    ) -> AdapterRecord:
        checkpoints = tuple(checkpoint_of(folder / name) for name in names)
        first = checked[0]
        source = first.found.source if len(checked) == 1 else _above(first.found)
        about = AdapterAbout(
            model_id=self.base.model_id,
            revision=self.base.revision,
            base_licence=self.base.licence,
            licence=first.found.licence,
            source=f"imported from {source}",
            recipe=None,
            versions=versions(),
            command=command_line(),
            imported=_imported(source, names, checked),
        )
        return AdapterRecord(
            task=task.name,
            key=key,
            base=self.base.slug,
            weight_hash=self.base.weight_hash,
            data_hash=task.data_hash,
            created=now(),
            checkpoints=checkpoints,
            figures={"largest_error": max(part.error for item in checked for part in item.parts)},
            about=about,
            folder=folder,
        )


def _imported(source: str, names: Sequence[str], checked: Sequence[_Checked]) -> Imported:
    """Return what a manifest says of an import.

    Args:
        source: where all of it came from.
        names: The names of the checkpoints' folders.
        checked: what became of each.
    """
    first = checked[0]
    inexact = [
        {"checkpoint": name} | vars(part)
        for name, item in zip(names, checked, strict=True)
        for part in item.parts
        if part.kept != "exact"
    ]
    return Imported.of(
        source,
        revision=first.found.revision,
        licence=first.found.licence,
        base_model=local_paths.shortened(first.settings.base_model) or None,
        peft_version=first.settings.peft_version,
        files=tuple(ImportedFile(name=item.found.name, **item.hashes) for item in checked),
        inexact=tuple(inexact),
    )


def _above(found: FoundAdapter) -> str:
    """Return the name of the folder, or the hub id, whose folders were imported together."""
    return found.source.rpartition("/")[0] if found.revision else found.folder.parent.name


def _checkpoints(checked: Sequence[_Checked]) -> list[str]:
    """Return folder names: by the numbers in the foreign names where these rise, else counted."""
    steps = [item.found.step for item in checked]
    known = [step for step in steps if step is not None]
    if len(checked) == 1 or known != sorted(set(known)) or len(known) < len(steps):
        known = list(range(1, len(checked) + 1))
    return [f"checkpoint-{step:05d}" for step in known]
