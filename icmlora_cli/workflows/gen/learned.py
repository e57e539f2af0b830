"""The harvested adapters that a generator learned from, as far as the registry has them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from icmlora_cli.disk.home import NAME
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.registered import read_last


@dataclass(frozen=True)
class Learned:
    """The adapters that a generator learned from.

    Args:
        adapters: The last checkpoint of each adapter that is in the registry, by the task's name.
        count: How many adapters it learned from, in the registry or not.
    """

    adapters: Mapping[str, Adapter]
    count: int

    def cores(self, codec: Codec) -> dict[str, torch.Tensor]:
        """Return the adapters' cores by a generator's codec, fp32 [modules, R, R], by the task's name."""
        return {task: codec.encode(adapter) for task, adapter in self.adapters.items()}


def learned_adapters(generator: Generator, store: AdapterStore, base: Base) -> Learned:
    """Return the adapters that ``generator.json`` names by task and key, without those that the registry lacks.

    Raises:
        CorruptFileError: If one of them is damaged.
    """
    keys = generator.manifest.adapters
    adapters: dict[str, Adapter] = {}
    for task, key in sorted(keys.items()):
        if not (NAME.fullmatch(task) and NAME.fullmatch(key)):  # they become parts of a path
            continue
        record = store.find(base.slug, task, key)
        if record is not None and record.weight_hash == base.weight_hash:
            adapters[task] = read_last(store, record)
    return Learned(adapters, len(keys))
