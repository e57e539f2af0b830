"""What can be freed: temporary files of dead processes, states of finished trainings, quarantine, cached vectors."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from icmlora_cli.errors import CorruptFile
from icmlora_cli.registry import files, leftovers, quarantine
from icmlora_cli.registry.home import Home

What = Literal["temporary", "states", "quarantine", "vectors"]
WHATS: tuple[What, ...] = get_args(What)


@dataclass(frozen=True)
class Item:
    """Something that can be freed, or that is kept though it looks like it.

    Args:
        what: its kind.
        path: the file or folder.
        bytes: that it takes.
        said: what it is, or why it is kept.
    """

    what: What
    path: Path
    bytes: int
    said: str

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return vars(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class Garbage:
    """What can be freed, and what is kept."""

    free: tuple[Item, ...]
    kept: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Bytes that can be freed."""
        return sum(item.bytes for item in self.free)


def collect(home: Home, whats: tuple[What, ...] = WHATS) -> Garbage:
    """Return what can be freed in a registry and its cache; deletes nothing.

    Args:
        home: the registry.
        whats: the kinds to look for.
    """
    found: list[tuple[Item, bool]] = []
    if "temporary" in whats:
        found += _temporaries(home)
    if "states" in whats:
        found += _states(home)
    if "quarantine" in whats:
        found += [(Item("quarantine", e.folder, e.bytes, _why(e.folder)), True) for e in quarantine.entries(home)]
    if "vectors" in whats:
        found += _vectors(home)
    return Garbage(tuple(item for item, free in found if free), tuple(item for item, free in found if not free))


def _temporaries(home: Home) -> Iterator[tuple[Item, bool]]:
    for left in leftovers.temporaries(home):
        said = f"left by a write of {left.target.name} that was killed"
        if left.in_use:
            said = f"a running icmlora may be writing {left.target.name}"
        elif left.only_copy:
            said = f"the only copy of {left.target.name}; put it back: icmlora registry verify --repair"
        yield Item("temporary", left.path, _bytes(left.path), said), not (left.in_use or left.only_copy)


def _states(home: Home) -> Iterator[tuple[Item, bool]]:
    for state in leftovers.states(home):
        said = f"state of a finished training of {state.name}"
        if not state.finished:
            said = f"an unfinished training of {state.name} goes on from it"
        yield Item("states", state.path, _bytes(state.path), said), state.finished


def _vectors(home: Home) -> Iterator[tuple[Item, bool]]:
    count = sum(1 for path in home.vectors.rglob("*.safetensors") if not path.name.startswith(files.TEMPORARY))
    if count:
        yield (
            Item("vectors", home.vectors, _bytes(home.vectors), f"{count} cached task vectors, read again if needed"),
            True,
        )


def _why(folder: Path) -> str:
    try:
        note = files.read_json(folder / quarantine.NOTE)
        return f"{note['was']}: {note['why']}"
    except (CorruptFile, FileNotFoundError, KeyError):
        return "in quarantine"


def _bytes(path: Path) -> int:
    try:
        return files.folder_bytes(path) if path.is_dir() else path.lstat().st_size
    except FileNotFoundError:  # its process has just finished with it
        return 0


def _delete(item: Item) -> None:
    if item.what == "quarantine":
        files.delete_folder(item.path)
    else:  # it has a temporary name already
        shutil.rmtree(item.path)


def free(item: Item) -> int:
    """Delete an item and return the bytes freed; 0 where it is gone already.

    Quarantined folders are renamed first, so that a deletion that is killed leaves nothing that looks whole.
    """
    freed = _bytes(item.path)
    if item.what == "vectors":
        for path in item.path.rglob("*.safetensors"):
            if not path.name.startswith(files.TEMPORARY):  # one of a running process
                path.unlink(missing_ok=True)
        return freed - _bytes(item.path)
    try:
        if item.path.is_dir() and not item.path.is_symlink():
            _delete(item)
        else:
            item.path.unlink()
    except FileNotFoundError:
        return 0
    return freed
