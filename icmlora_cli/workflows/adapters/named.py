"""An adapter by what a user calls it: a task's name, a key of the registry, or a PEFT folder."""

from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.errors import NotFoundError, UsageError
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.weights.adapter import CONFIG


@dataclass(frozen=True)
class NamedAdapter:
    """An adapter on this machine.

    Args:
        name: what it was asked for as.
        folder: The PEFT folder of the adapter.
        record: what the registry knows of it; None for a folder outside of it.
    """

    name: str
    folder: Path
    record: AdapterRecord | None


def find_named(store: AdapterStore, name: str) -> NamedAdapter:
    """Return an adapter; of the registry, the last checkpoint, its weights compared with the manifest.

    Args:
        store: the registry's adapters.
        name: a task's name (its newest adapter), a key, or a PEFT folder.

    Raises:
        CorruptFileError: if it is not what its manifest says.
        NotFoundError: if there is no such adapter.
        UsageError: if the name is that of adapters of several bases.
    """
    records = [item for item in store.all() if name in (item.task, item.key)]
    if records:
        bases = sorted({item.base for item in records})
        if len(bases) > 1:
            raise UsageError(
                f"{name} has adapters of {len(bases)} bases: {', '.join(bases)}",
                hint="name one by its key: icmlora adapter list --json",
            )
        newest = max(records, key=lambda item: item.created)
        return NamedAdapter(name, store.checked(newest, newest.checkpoints[-1]), newest)
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return NamedAdapter(name, folder, None)
    raise NotFoundError(
        f"{name[:200]!r} is no task with an adapter, no key of one, and no PEFT folder",
        where=str(store.home.adapters),
        hint="icmlora adapter list",
    )
