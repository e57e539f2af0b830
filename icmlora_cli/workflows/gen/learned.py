"""The harvested adapters that a generator learned from, as far as the registry has them."""

from dataclasses import dataclass
from functools import cached_property

import torch

from icmlora_cli.disk.home import NAME
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.registered import read_last


@dataclass(frozen=True)
class Learned:
    """The adapters that a generator learned from.

    Args:
        store: Where they are.
        records: Those of them that are in the registry, in the order of their tasks' names.
        count: How many adapters it learned from, in the registry or not.
    """

    store: AdapterStore
    records: tuple[AdapterRecord, ...]
    count: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks whose adapters are in the registry."""
        return tuple(record.task for record in self.records)

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """The last checkpoint of each of them, by the task's name.

        Raises:
            CorruptFileError: If one of them is damaged.
        """
        return {record.task: read_last(self.store, record) for record in self.records}

    def cores(self, codec: Codec) -> dict[str, torch.Tensor]:
        """Return the adapters' cores by a generator's codec, fp32 [modules, R, R], by the task's name."""
        return {task: codec.encode(adapter) for task, adapter in self.adapters.items()}


def learned_adapters(generator: Generator, store: AdapterStore, base: Base) -> Learned:
    """Return the adapters that ``generator.json`` names by task and key, without those that the registry lacks."""
    keys = generator.manifest.adapters
    records = []
    for task, key in sorted(keys.items()):
        if not (NAME.fullmatch(task) and NAME.fullmatch(key)):  # they become parts of a path
            continue
        record = store.find(base.slug, task, key)
        if record is not None and record.weight_hash == base.weight_hash:
            records.append(record)
    return Learned(store, tuple(records), len(keys))
