"""What ``registry gc`` can free.

That is what killed processes left, states of finished trainings, quarantine, cached task vectors, and second copies.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.upkeep import duplicates, leftovers, quarantine
from icmlora_cli.registry.upkeep.duplicates import Copy, Duplicates, Linker

What = Literal["temporary", "states", "quarantine", "vectors", "duplicates"]
WHATS: tuple[What, ...] = get_args(What)
VECTOR = ".safetensors"


@dataclass(frozen=True)
class GarbageItem:
    """Something that can be freed, or that is of a kind that can be freed but has to be kept.

    Args:
        what: its kind.
        path: the file or folder.
        bytes: the bytes that freeing it gives back, or that it takes if it is kept.
        said: what it is, or why it is kept, in words.
        copy: the copy that becomes a hard link; None for every kind but ``duplicates``, which are deleted.
    """

    what: What
    path: Path
    bytes: int
    said: str
    copy: Copy | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        same_as = None if self.copy is None else str(self.copy.same_as)
        return {"what": self.what, "path": str(self.path), "bytes": self.bytes, "said": self.said, "same_as": same_as}


@dataclass(frozen=True)
class Garbage:
    """The items that can be freed, and the items that are kept."""

    free: tuple[GarbageItem, ...]
    kept: tuple[GarbageItem, ...]

    @property
    def bytes(self) -> int:
        """The bytes that can be freed."""
        return sum(item.bytes for item in self.free)

    def by_kind(self) -> dict[What, int]:
        """Return the bytes that can be freed of each kind; kinds without an item are left out."""
        kinds = [what for what in WHATS if any(item.what == what for item in self.free)]
        return {what: sum(item.bytes for item in self.free if item.what == what) for what in kinds}


def collect(home: Home, whats: tuple[What, ...] = WHATS, equal: Duplicates | None = None) -> Garbage:
    """Find what can be freed in a registry and its cache, without deleting anything.

    Args:
        home: the folders of the registry.
        whats: the kinds to look for.
        equal: the registry's equal checkpoints; None looks for them.
    """
    items: list[tuple[GarbageItem, bool]] = []  # and whether the item can be freed
    if "temporary" in whats:
        items += _temporaries(home)
    if "states" in whats:
        items += _states(home)
    if "quarantine" in whats:
        items += _quarantine(home)
    if "vectors" in whats:
        items += _vectors(home)
    if "duplicates" in whats:
        items += _duplicates(home, duplicates.find(AdapterStore(home).readable()) if equal is None else equal)
    return Garbage(tuple(item for item, free in items if free), tuple(item for item, free in items if not free))


def _temporaries(home: Home) -> Iterator[tuple[GarbageItem, bool]]:
    for item in leftovers.temporaries(home):
        message = f"left by a write of {item.target.name} that was killed"
        if item.in_use:
            message = f"a running icmlora may be writing {item.target.name}"
        elif item.only_copy:
            message = f"the only copy of {item.target.name}; put it back: icmlora registry verify --repair"
        yield GarbageItem("temporary", item.path, _bytes(item.path), message), not (item.in_use or item.only_copy)


def _states(home: Home) -> Iterator[tuple[GarbageItem, bool]]:
    for state in leftovers.states(home):
        message = f"state of a finished training of {state.name}"
        if not state.finished:
            message = f"an unfinished training of {state.name} goes on from it"
        yield GarbageItem("states", state.path, _bytes(state.path), message), state.finished


def _vectors(home: Home) -> Iterator[tuple[GarbageItem, bool]]:
    paths = files.finished_files(home.vectors, VECTOR)
    if paths:
        message = f"{len(paths)} cached task vectors, read again if needed"
        yield GarbageItem("vectors", home.vectors, _bytes(*paths), message), True


def _duplicates(home: Home, equal: Duplicates) -> Iterator[tuple[GarbageItem, bool]]:
    for copy in equal.copies:
        message = f"the same weights as {copy.same_as.relative_to(home.root)}, which a link would store once"
        yield GarbageItem("duplicates", copy.path, copy.bytes, message, copy), True
    for item in equal.left:
        yield GarbageItem("duplicates", item.path, item.bytes, item.said), False


def _quarantine(home: Home) -> Iterator[tuple[GarbageItem, bool]]:
    for entry in quarantine.entries(home):
        message = f"{entry.note.was}: {entry.note.why}" if entry.note else "in quarantine"
        if entry.missing:
            message = f"the only copy of {message}; it has not been made again: icmlora registry verify --repair"
        yield GarbageItem("quarantine", entry.folder, entry.bytes, message), not entry.missing


def _bytes(*paths: Path) -> int:
    try:
        return files.freed_bytes(*paths)
    except FileNotFoundError:  # its process has removed or renamed it meanwhile
        return 0


def _delete(item: GarbageItem) -> None:
    if item.what == "quarantine":
        files.delete_folder(item.path)
    else:  # a folder with a temporary name, which nothing takes for whole
        shutil.rmtree(item.path)


def free(item: GarbageItem) -> int:
    """Delete an item, or make a copy a hard link, and return the bytes freed; 0 if it is gone already.

    Folders in quarantine are renamed first, so that a deletion that is killed leaves nothing that looks whole.
    """
    if item.copy is not None:
        return Linker().link(item.copy).bytes
    if item.what == "vectors":
        paths = files.finished_files(item.path, VECTOR)
        freed = _bytes(*paths)
        for path in paths:
            path.unlink(missing_ok=True)
        return freed
    freed = _bytes(item.path)
    try:
        if item.path.is_dir() and not item.path.is_symlink():
            _delete(item)
        else:
            item.path.unlink()
    except FileNotFoundError:
        return 0
    return freed
