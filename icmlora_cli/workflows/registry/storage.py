"""Counts the bytes of bases, tasks, adapters and generators, what can be freed, and when a generator is smaller."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from icmlora_cli.disk.files import folder_bytes
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.registry.adapters import WEIGHTS, AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.lora_header import lora_format
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.registry.upkeep import duplicates
from icmlora_cli.registry.upkeep.garbage import What
from icmlora_cli.workflows.registry.gc import plan


@dataclass(frozen=True)
class AdapterStorage:
    """The bytes of one task's adapters on one base.

    Args:
        task: The name of the task.
        base: The slug of the base.
        checkpoints: How many checkpoints are kept.
        bytes: The bytes of all kept checkpoints.
        one: The bytes of the last checkpoint alone.
        rank: The rank of the last checkpoint, such as ``8``, or ``2-16`` where it differs by module; None where its
            file does not say.
        dtype: The number format of the last checkpoint, such as ``fp32``; None where its file does not say.
    """

    task: str
    base: str
    checkpoints: int
    bytes: int
    one: int
    rank: str | None
    dtype: str | None


@dataclass(frozen=True)
class FormatStorage:
    """The bytes of the adapters whose last checkpoints have one rank and one number format.

    Args:
        rank: The rank, as in ``AdapterStorage``.
        dtype: The number format, as in ``AdapterStorage``.
        tasks: The number of tasks; a task on two bases counts twice.
        checkpoints: How many checkpoints are kept.
        bytes: The bytes of all kept checkpoints.
    """

    rank: str | None
    dtype: str | None
    tasks: int
    checkpoints: int
    bytes: int


@dataclass(frozen=True)
class DuplicateStorage:
    """The weights files of checkpoints that equal others, by the SHA-256 in their manifests.

    Args:
        files: How many files have the content of another file.
        bytes: The bytes that these files take on the disk.
        linked_files: How many files are hard links of an equal one.
        linked_bytes: The bytes of these links, which the adapters' bytes count and the disk does not.
    """

    files: int
    bytes: int
    linked_files: int
    linked_bytes: int


@dataclass(frozen=True)
class GeneratorStorage:
    """The bytes of a generator, compared with the adapters of the tasks that it learned from.

    Args:
        name: The name of the generator.
        bytes: The bytes of its folder.
        tasks: How many tasks it learned from.
        ratio_all: Its bytes divided by those of all kept checkpoints; None without any.
        ratio_one: Its bytes divided by those of one adapter for each task; None without any.
        break_even: The number of tasks from which on it is smaller than one adapter for each; None without any.
    """

    name: str
    bytes: int
    tasks: int
    ratio_all: float | None
    ratio_one: float | None
    break_even: int | None


@dataclass(frozen=True)
class StorageReport:
    """The bytes of everything in a registry.

    Args:
        bases: The name and the bytes of each base model.
        tasks: The name and the bytes of each task.
        adapters: The adapters of each task and base.
        formats: The adapters grouped by rank and number format, the group with the most bytes first.
        generators: The generators, by name.
        duplicates: The equal checkpoints.
        gc: The bytes that ``icmlora registry gc`` would free of each kind, without kinds of which there is nothing.
    """

    bases: tuple[tuple[str, int], ...]
    tasks: tuple[tuple[str, int], ...]
    adapters: tuple[AdapterStorage, ...]
    formats: tuple[FormatStorage, ...]
    generators: tuple[GeneratorStorage, ...]
    duplicates: DuplicateStorage
    gc: Mapping[What, int]

    @property
    def adapter_bytes(self) -> int:
        """The bytes of all kept checkpoints."""
        return sum(item.bytes for item in self.adapters)

    @property
    def bytes(self) -> int:
        """The bytes of bases, tasks, adapters and generators."""
        named = sum(size for _, size in (*self.bases, *self.tasks))
        return named + self.adapter_bytes + sum(item.bytes for item in self.generators)

    @property
    def gc_bytes(self) -> int:
        """The bytes that ``icmlora registry gc`` would free."""
        return sum(self.gc.values())


def run(home: Home) -> StorageReport:
    """Count the bytes of bases, tasks, adapters and generators, and those that can be freed.

    Adapters are counted as their manifests say; of each task, the header of one weights file is read.

    A manifest that cannot be read is left out; ``icmlora registry verify`` names it.
    """
    records = AdapterStore(home).readable()
    adapters = _adapters(records)
    equal = duplicates.find(records)
    store = GeneratorStore(home)
    return StorageReport(
        bases=tuple((base.name, base.bytes) for base in BaseStore(home).all()),
        tasks=tuple((name, folder_bytes(home.tasks / name)) for name in TaskStore(home).names()),
        adapters=adapters,
        formats=_formats(adapters),
        generators=tuple(_generator(store, name, adapters) for name in store.names()),
        duplicates=DuplicateStorage(equal.files, equal.bytes, equal.linked_files, equal.linked_bytes),
        gc=plan(home, equal=equal).by_kind(),
    )


def _adapters(records: Iterable[AdapterRecord]) -> tuple[AdapterStorage, ...]:
    grouped: dict[tuple[str, str], list[AdapterRecord]] = defaultdict(list)
    for record in records:
        grouped[record.task, record.base].append(record)
    adapters = []
    for (task, base), items in sorted(grouped.items()):
        last = lora_format(items[-1].last / WEIGHTS)
        checkpoints, size = sum(len(item.checkpoints) for item in items), sum(item.bytes for item in items)
        one = items[-1].checkpoints[-1].bytes
        adapters.append(AdapterStorage(task, base, checkpoints, size, one, last.rank, last.dtype))
    return tuple(adapters)


def _formats(adapters: Sequence[AdapterStorage]) -> tuple[FormatStorage, ...]:
    grouped: dict[tuple[str | None, str | None], list[AdapterStorage]] = defaultdict(list)
    for item in adapters:
        grouped[item.rank, item.dtype].append(item)
    formats = [
        FormatStorage(rank, dtype, len(items), sum(i.checkpoints for i in items), sum(i.bytes for i in items))
        for (rank, dtype), items in grouped.items()
    ]
    return tuple(sorted(formats, key=lambda item: -item.bytes))


def _generator(store: GeneratorStore, name: str, adapters: tuple[AdapterStorage, ...]) -> GeneratorStorage:
    size = folder_bytes(store.folder(name))
    try:
        learned, base = store.tasks(name), store.base(name)
    except CorruptFileError:  # its bytes count all the same, and icmlora registry verify names the damage
        learned, base = frozenset(), ""
    replaced = [item for item in adapters if item.task in learned and item.base == base]
    everything, single = sum(item.bytes for item in replaced), sum(item.one for item in replaced)
    return GeneratorStorage(
        name=name,
        bytes=size,
        tasks=len(learned),
        ratio_all=size / everything if everything else None,
        ratio_one=size / single if single else None,
        break_even=break_even(size, single, len(replaced)),
    )


def break_even(generator: int, one_each: int, tasks: int) -> int | None:
    """Return from how many tasks on a generator is smaller than one adapter for each; None without adapters.

    Args:
        generator: The bytes of the generator.
        one_each: The bytes of one adapter of each task, summed.
        tasks: The number of these tasks.
    """
    return math.ceil(generator / (one_each / tasks)) if one_each else None
