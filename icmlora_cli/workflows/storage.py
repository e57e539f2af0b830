"""Storage: what base, tasks, adapters and generators take, and when a generator pays."""

import math
from collections import defaultdict
from dataclasses import dataclass

from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.files import folder_bytes
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.tasks import TaskStore


@dataclass(frozen=True)
class AdapterStorage:
    """Bytes of one task's adapters.

    Args:
        task: its name.
        base: slug of the base.
        checkpoints: how many are kept.
        bytes: of all of them.
        one: of the last alone.
    """

    task: str
    base: str
    checkpoints: int
    bytes: int
    one: int


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
    """Bytes of everything in a registry."""

    bases: tuple[tuple[str, int], ...]
    tasks: tuple[tuple[str, int], ...]
    adapters: tuple[AdapterStorage, ...]
    generators: tuple[GeneratorStorage, ...]

    @property
    def adapter_bytes(self) -> int:
        """Bytes of all kept checkpoints."""
        return sum(item.bytes for item in self.adapters)


def run(home: Home) -> StorageReport:
    """Count the bytes of bases, tasks, adapters and generators.

    Raises:
        CorruptFile: if a manifest is broken.
    """
    tasks = TaskStore(home)
    grouped: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
    for record in AdapterStore(home).all():
        last = record.checkpoints[-1].bytes
        grouped[record.task, record.base].append((len(record.checkpoints), record.bytes, last))
    adapters = tuple(
        AdapterStorage(task, base, sum(i[0] for i in items), sum(i[1] for i in items), items[-1][2])
        for (task, base), items in sorted(grouped.items())
    )
    store = GeneratorStore(home)
    return StorageReport(
        bases=tuple((base.name, base.bytes) for base in BaseStore(home).all()),
        tasks=tuple((name, folder_bytes(home.tasks / name)) for name in tasks.names()),
        adapters=adapters,
        generators=tuple(_generator(store, name, adapters) for name in store.names()),
    )


def _generator(store: GeneratorStore, name: str, adapters: tuple[AdapterStorage, ...]) -> GeneratorStorage:
    own = folder_bytes(store.folder(name))
    learned = store.tasks(name)
    base = store.base(name)
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
