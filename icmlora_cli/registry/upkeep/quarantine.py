"""Quarantine: the folder to which damaged or replaced things are moved, each with a note of where it was and why.

Nothing is deleted.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.notes import QuarantineNote, Reason, Thing
from icmlora_cli.provenance.versions import now
from icmlora_cli.registry import adapters
from icmlora_cli.registry.upkeep.leftovers import QUARANTINE

NOTE = "why.json"
SCHEMA: Literal["icmlora.quarantine/1"] = "icmlora.quarantine/1"


@dataclass(frozen=True)
class QuarantineEntry:
    """One thing in quarantine.

    Args:
        folder: the folder that holds the thing, under its own name, and the note.
        bytes: the bytes that deleting the folder gives back.
        note: the note; None if it is missing or broken.
    """

    folder: Path
    bytes: int
    note: QuarantineNote | None

    @property
    def root(self) -> Path:
        """The root of the registry or its cache, whichever the thing was in."""
        return self.folder.parents[1]

    @property
    def thing(self) -> Path:
        """The file or folder itself, where it is now."""
        return self.folder / (Path(self.note.was).name if self.note else "")

    @property
    def missing(self) -> bool:
        """Whether a task, adapter, generator or base was moved here, and nothing is in its place."""
        note = self.note
        if note is None or note.settled or note.thing is None or note.reason not in ("damaged", "replaced"):
            return False
        place = self.root / note.was
        if note.thing == "adapter":  # a harvest that is not finished has a folder, but no manifest yet
            return not (place / adapters.MANIFEST).is_file()
        return not os.path.lexists(place)

    def settle(self) -> None:
        """Write into the note that nothing is missing any more."""
        if self.note is not None:
            _write_note(self.folder, self.note.model_copy(update={"settled": True}))


def keep(home: Home, path: Path, why: str) -> Path:
    """Put a copy of a folder of files into quarantine before it is replaced, and return the copy's path.

    Its files are hard links if the disk has them, since icmlora replaces files and never changes them.

    Args:
        home: the folders of the registry; ``path`` is in its root or its cache.
        path: the folder to copy.
        why: the reason, in words.

    Raises:
        OutOfSpaceError: If the disk is full.
    """
    folder = _entry(home, path, QuarantineNote(schema=SCHEMA, was="", why=why, when=now(), reason="copied"))
    with files.new_folder(folder / path.name) as copy:
        for item in sorted(path.iterdir()):
            try:
                os.link(item, copy / item.name)
            except OSError:
                shutil.copy2(item, copy / item.name)
    return folder / path.name


def put(
    home: Home,
    path: Path,
    why: str,
    *,
    reason: Reason = "damaged",
    thing: Thing | None = None,
    name: str = "",
    mend: str = "",
) -> QuarantineEntry:
    """Move a file or folder into quarantine, and return its entry there.

    The note is written first, and the move is one rename on the same disk. ``verify`` and ``gc`` count a thing that was
    moved as missing until something is in its place.

    Args:
        home: the folders of the registry; ``path`` is in its root or its cache.
        path: the file or folder to move.
        why: the reason, in words.
        reason: whether it is damaged, or is being replaced.
        thing: the kind of thing that is missing without it; None if nothing is.
        name: the name of the thing.
        mend: the command that makes it again.

    Raises:
        OutOfSpaceError: If the disk is full; nothing was moved then.
    """
    note = QuarantineNote(schema=SCHEMA, was="", why=why, when=now(), reason=reason, thing=thing, name=name, mend=mend)
    folder = _entry(home, path, note)
    os.replace(path, folder / path.name)
    files.sync_folder(path.parent)
    return _read_entry(folder)


def _entry(home: Home, path: Path, note: QuarantineNote) -> Path:
    """Make a folder in quarantine with a note, and return it."""
    root = home.root if path.is_relative_to(home.root) else home.cache
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = root / QUARANTINE / f"{stamp}-{uuid4().hex[:6]}"
    _write_note(folder, note.model_copy(update={"was": path.relative_to(root).as_posix()}))
    return folder


def _write_note(folder: Path, note: QuarantineNote) -> None:
    note.write(folder / NOTE)


def entries(home: Home) -> tuple[QuarantineEntry, ...]:
    """Return the things in quarantine, the oldest first."""
    folders = [path for root in {home.root, home.cache} for path in files.subfolders(root / QUARANTINE)]
    return tuple(map(_read_entry, sorted(folders)))


def _read_entry(folder: Path) -> QuarantineEntry:
    note = None
    with suppress(CorruptFileError, OSError):
        note = QuarantineNote.read(folder / NOTE)
    return QuarantineEntry(folder, files.freed_bytes(folder), note)
