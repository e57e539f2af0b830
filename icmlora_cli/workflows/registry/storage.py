"""Storage: what base, tasks, adapters and generators take, what of it is not needed, and when a generator pays."""

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
    """Bytes of one task's adapters.

    Args:
        task: its name.
        base: slug of the base.
        checkpoints: how many are kept.
        bytes: of all of them.
        one: of the last alone.
        rank: of the last, such as ``8``; ``2-16`` where it differs by module; None where its file does not say.
        dtype: of the last, such as ``fp32``; None where its file does not say.
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
    """Bytes of the adapters whose last checkpoints have one rank and one dtype.

    Args:
        rank: as in ``AdapterStorage``.
        dtype: as in ``AdapterStorage``.
        tasks: how many tasks those are (a task on two bases counts twice).
        checkpoints: how many are kept.
        bytes: of all of them.
    """

    rank: str | None
    dtype: str | None
    tasks: int
    checkpoints: int
    bytes: int


@dataclass(frozen=True)
class DuplicateStorage:
    """Checkpoint weights that equal others, by the SHA-256 in their manifests.

    Args:
        files: how many hold what another file holds.
        bytes: that those take.
        linked_files: how many are hard links of an equal one.
        linked_bytes: that those would take: the adapters' bytes count them, and the disk does not.
    """

    files: int
    bytes: int
    linked_files: int
    linked_bytes: int


@dataclass(frozen=True)
class GeneratorStorage:
    """Bytes of a generator against the adapters of the tasks that it learned from.

    Args:
        name: its name.
        bytes: of its folder.
        tasks: how many tasks it learned from.
        ratio_all: its bytes to those of all kept checkpoints; None without any.
        ratio_one: its bytes to those of one adapter a task; None without any.
        break_even: from how many tasks on it is smaller than one adapter a task; None without any.
    """

    name: str
    bytes: int
    tasks: int
    ratio_all: float | None
    ratio_one: float | None
    break_even: int | None


@dataclass(frozen=True)
class StorageReport:
    """Bytes of everything in a registry.

    Args:
        bases: name to bytes.
        tasks: name to bytes.
        adapters: by base and task.
        formats: the adapters by rank and dtype, the largest first.
        generators: by name.
        duplicates: equal checkpoints.
        gc: kind to the bytes that ``icmlora registry gc`` would free; kinds of which there is nothing are left out.
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
        """Bytes of all kept checkpoints."""
        return sum(item.bytes for item in self.adapters)

    @property
    def bytes(self) -> int:
        """Bytes of bases, tasks, adapters and generators."""
        named = sum(size for _, size in (*self.bases, *self.tasks))
        return named + self.adapter_bytes + sum(item.bytes for item in self.generators)

    @property
    def gc_bytes(self) -> int:
        """Bytes that ``icmlora registry gc`` would free."""
        return sum(self.gc.values())


def run(home: Home) -> StorageReport:
    """Count the bytes of bases, tasks, adapters and generators, and those that can be freed.

    Adapters are counted as their manifests say; of each task, the header of one weights file is read.

    A manifest that cannot be read is passed over: ``icmlora registry verify`` names it.
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
    found = []
    for (task, base), items in sorted(grouped.items()):
        last = lora_format(items[-1].last / WEIGHTS)
        checkpoints, size = sum(len(item.checkpoints) for item in items), sum(item.bytes for item in items)
        one = items[-1].checkpoints[-1].bytes
        found.append(AdapterStorage(task, base, checkpoints, size, one, last.rank, last.dtype))
    return tuple(found)


def _formats(adapters: Sequence[AdapterStorage]) -> tuple[FormatStorage, ...]:
    grouped: dict[tuple[str | None, str | None], list[AdapterStorage]] = defaultdict(list)
    for item in adapters:
        grouped[item.rank, item.dtype].append(item)
    found = [
        FormatStorage(rank, dtype, len(items), sum(i.checkpoints for i in items), sum(i.bytes for i in items))
        for (rank, dtype), items in grouped.items()
    ]
    return tuple(sorted(found, key=lambda item: -item.bytes))


def _generator(store: GeneratorStore, name: str, adapters: tuple[AdapterStorage, ...]) -> GeneratorStorage:
    own = folder_bytes(store.folder(name))
    try:
        learned, base = store.tasks(name), store.base(name)
    except CorruptFileError:  # its bytes are there all the same; icmlora registry verify tells what is wrong
        learned, base = frozenset(), ""
    mine = [item for item in adapters if item.task in learned and item.base == base]
    everything, single = sum(item.bytes for item in mine), sum(item.one for item in mine)
    return GeneratorStorage(
        name=name,
        bytes=own,
        tasks=len(learned),
        ratio_all=own / everything if everything else None,
        ratio_one=own / single if single else None,
        break_even=break_even(own, single, len(mine)),
    )


def break_even(generator: int, one_each: int, tasks: int) -> int | None:
    """Return from how many tasks on a generator of this size is smaller than one adapter a task; None without any.

    Args:
        generator: its bytes.
        one_each: bytes of one adapter of each task.
        tasks: how many tasks those are.
    """
    return math.ceil(generator / (one_each / tasks)) if one_each else None
