"""The harvested adapters that a generator learned from, where they are in the registry."""

from collections.abc import Mapping
from dataclasses import dataclass

from icmlora_cli.disk.home import NAME
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.registered import read_last


@dataclass(frozen=True)
class Learned:
    """Adapters that a generator learned from.

    Args:
        adapters: by task, the last checkpoint of those that are here.
        count: how many it learned from, here or not.
    """

    adapters: Mapping[str, Adapter]
    count: int


def learned_adapters(generator: Generator, store: AdapterStore, base: Base) -> Learned:
    """Return the adapters that ``generator.json`` names by task and key; those that are not here are left out.

    Raises:
        CorruptFileError: if one that is here is damaged.
    """
    keys = generator.manifest.adapters
    found: dict[str, Adapter] = {}
    for task, key in sorted(keys.items()):
        if not (NAME.fullmatch(task) and NAME.fullmatch(key)):  # they become parts of a path
            continue
        record = store.find(base.slug, task, key)
        if record is not None and record.weight_hash == base.weight_hash:
            found[task] = read_last(store, record)
    return Learned(found, len(keys))
