"""What can be freed: what dead processes left, finished states, quarantine, cached vectors, second copies."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.notes import QuarantineNote
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.upkeep import duplicates, leftovers, quarantine
from icmlora_cli.registry.upkeep.duplicates import Copy, Duplicates, Linker

What = Literal["temporary", "states", "quarantine", "vectors", "duplicates"]
WHATS: tuple[What, ...] = get_args(What)
VECTOR = ".safetensors"


@dataclass(frozen=True)
class GarbageItem:
    """Something that can be freed, or that is kept though it looks like it.

    Args:
        what: its kind.
        path: the file or folder.
        bytes: that freeing it gives back; of what is kept, that it takes.
        said: what it is, or why it is kept.
        copy: of ``duplicates``, what becomes a link; every other kind is deleted.
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
    """What can be freed, and what is kept."""

    free: tuple[GarbageItem, ...]
    kept: tuple[GarbageItem, ...]

    @property
    def bytes(self) -> int:
        """Bytes that can be freed."""
        return sum(item.bytes for item in self.free)

    def by_kind(self) -> dict[What, int]:
        """Return the bytes of each kind that can be freed; a kind of which there is nothing is left out."""
        kinds = [what for what in WHATS if any(item.what == what for item in self.free)]
        return {what: sum(item.bytes for item in self.free if item.what == what) for what in kinds}


def collect(home: Home, whats: tuple[What, ...] = WHATS, equal: Duplicates | None = None) -> Garbage:
    """Return what can be freed in a registry and its cache; deletes nothing.

    Args:
        home: the registry.
        whats: the kinds to look for.
        equal: its equal checkpoints, where they have been looked for already.
    """
    found: list[tuple[GarbageItem, bool]] = []
    if "temporary" in whats:
        found += _temporaries(home)
    if "states" in whats:
        found += _states(home)
    if "quarantine" in whats:
        found += [
            (GarbageItem("quarantine", e.folder, e.bytes, _why(e.folder)), True) for e in quarantine.entries(home)
        ]
    if "vectors" in whats:
        found += _vectors(home)
    if "duplicates" in whats:
        found += _duplicates(home, duplicates.find(AdapterStore(home).readable()) if equal is None else equal)
    return Garbage(tuple(item for item, free in found if free), tuple(item for item, free in found if not free))


def _temporaries(home: Home) -> Iterator[tuple[GarbageItem, bool]]:
    for left in leftovers.temporaries(home):
        said = f"left by a write of {left.target.name} that was killed"
        if left.in_use:
            said = f"a running icmlora may be writing {left.target.name}"
        elif left.only_copy:
            said = f"the only copy of {left.target.name}; put it back: icmlora registry verify --repair"
        yield GarbageItem("temporary", left.path, _bytes(left.path), said), not (left.in_use or left.only_copy)


def _states(home: Home) -> Iterator[tuple[GarbageItem, bool]]:
    for state in leftovers.states(home):
        said = f"state of a finished training of {state.name}"
        if not state.finished:
            said = f"an unfinished training of {state.name} goes on from it"
        yield GarbageItem("states", state.path, _bytes(state.path), said), state.finished


def _vectors(home: Home) -> Iterator[tuple[GarbageItem, bool]]:
    found = files.finished_files(home.vectors, VECTOR)
    if found:
        said = f"{len(found)} cached task vectors, read again if needed"
        yield GarbageItem("vectors", home.vectors, _bytes(*found), said), True


def _duplicates(home: Home, found: Duplicates) -> Iterator[tuple[GarbageItem, bool]]:
    for copy in found.copies:
        said = f"the same weights as {copy.same_as.relative_to(home.root)}, which a link would store once"
        yield GarbageItem("duplicates", copy.path, copy.bytes, said, copy), True
    for left in found.left:
        yield GarbageItem("duplicates", left.path, left.bytes, left.said), False


def _why(folder: Path) -> str:
    try:
        note = QuarantineNote.read(folder / quarantine.NOTE)
    except (CorruptFileError, FileNotFoundError):
        return "in quarantine"
    return f"{note.was}: {note.why}"


def _bytes(*paths: Path) -> int:
    try:
        return files.freed_bytes(*paths)
    except FileNotFoundError:  # its process has just finished with it
        return 0


def _delete(item: GarbageItem) -> None:
    if item.what == "quarantine":
        files.delete_folder(item.path)
    else:  # it has a temporary name already
        shutil.rmtree(item.path)


def free(item: GarbageItem) -> int:
    """Delete an item, or make a copy a link, and return the bytes freed; 0 where it is gone already.

    Quarantined folders are renamed first, so that a deletion that is killed leaves nothing that looks whole.
    """
    if item.copy is not None:
        return Linker().link(item.copy).bytes
    if item.what == "vectors":
        found = files.finished_files(item.path, VECTOR)
        freed = _bytes(*found)
        for path in found:
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
