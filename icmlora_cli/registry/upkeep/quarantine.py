"""Quarantine: what is damaged or replaced is moved there, with a note of where it was and why. Nothing is deleted."""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.manifests.notes import QuarantineNote
from icmlora_cli.provenance.versions import now
from icmlora_cli.registry.upkeep.leftovers import QUARANTINE

NOTE = "why.json"


@dataclass(frozen=True)
class QuarantineEntry:
    """One thing in quarantine.

    Args:
        folder: holds the thing, under its own name, and the note.
        bytes: that deleting it gives back.
    """

    folder: Path
    bytes: int


def keep(home: Home, path: Path, why: str) -> Path:
    """Put a second copy of a folder of files into quarantine, for what is about to be replaced; return where it is.

    Its files are hard links, where the disk has them: writers here replace files, and never change them.

    Raises:
        OutOfSpaceError: if the disk is full.
    """
    folder = _entry(home, path, why)
    with files.new_folder(folder / path.name) as copy:
        for item in sorted(path.iterdir()):
            try:
                os.link(item, copy / item.name)
            except OSError:
                shutil.copy2(item, copy / item.name)
    return folder / path.name


def put(home: Home, path: Path, why: str) -> Path:
    """Move a file or folder into quarantine, and return where it is now.

    The note is written first; the move is one rename on the same disk.

    Args:
        home: the registry; ``path`` lies in its root or its cache.
        path: what is moved.
        why: in words.

    Raises:
        OutOfSpaceError: if the disk is full; nothing was moved then.
    """
    folder = _entry(home, path, why)
    os.replace(path, folder / path.name)
    return folder / path.name


def _entry(home: Home, path: Path, why: str) -> Path:
    """Make a folder in quarantine with a note, and return it."""
    root = home.root if path.is_relative_to(home.root) else home.cache
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    folder = root / QUARANTINE / f"{stamp}-{uuid4().hex[:6]}"
    was = path.relative_to(root).as_posix()
    QuarantineNote(schema="icmlora.quarantine/1", was=was, why=why, when=now()).write(folder / NOTE)
    return folder


def entries(home: Home) -> tuple[QuarantineEntry, ...]:
    """Return what is in quarantine, the oldest first."""
    folders = [path for root in {home.root, home.cache} for path in files.subfolders(root / QUARANTINE)]
    return tuple(QuarantineEntry(path, files.freed_bytes(path)) for path in sorted(folders))
