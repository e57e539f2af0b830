"""Adapters as commands name them: by task, by key, or by folder."""

from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.errors import NotFound, UsageFault
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.weights.adapter import CONFIG


@dataclass(frozen=True)
class Named:
    """An adapter that was asked for.

    Args:
        name: as it was typed.
        folder: the PEFT folder, of the last checkpoint where it is the registry's.
        record: of the registry; None of a folder that is not in it.
    """

    name: str
    folder: Path
    record: AdapterRecord | None


def find_named(store: AdapterStore, name: str) -> Named:
    """Return the adapter of a name.

    Args:
        store: the registry's adapters.
        name: a task's name (its newest adapter), a key, or a PEFT folder.

    Raises:
        CorruptFile: if it is the registry's and not what its manifest says.
        NotFound: if there is no such adapter.
        UsageFault: if it is the name of adapters of several bases.
    """
    records = [item for item in store.all() if name in (item.task, item.key)]
    if records:
        bases = sorted({item.base for item in records})
        if len(bases) > 1:
            raise UsageFault(
                f"{name} has adapters of {len(bases)} bases: {', '.join(bases)}",
                hint="name one by its key: icmlora adapter list --json",
            )
        newest = max(records, key=lambda item: item.created)
        return Named(name, store.checked(newest, newest.checkpoints[-1]), newest)
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return Named(name, folder, None)
    raise NotFound(
        f"{name[:200]!r} is no task with an adapter, no key of one, and no PEFT folder",
        where=str(store.home.adapters),
        hint="icmlora adapter list",
    )
