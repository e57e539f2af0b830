"""A seal on a manifest: the hash of its own content, so that a flipped bit in it is found like one in a weight."""

import json
from collections.abc import Mapping
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError

SEAL = "seal"


class ChecksumError(CorruptFileError):
    """A manifest that is readable, and yet not what was written."""


def write_manifest(path: Path, value: Mapping[str, object]) -> None:
    """Write a manifest with its seal, whole or not at all.

    Raises:
        OutOfSpaceError: if the disk is full.
    """
    files.write_json(path, sealed(value))


def sealed(value: Mapping[str, object]) -> dict[str, object]:
    """Return a manifest's content with its seal last; an earlier seal is left out."""
    content = json.loads(json.dumps({key: item for key, item in value.items() if key != SEAL}))
    return dict(content) | {SEAL: files.sha256_json(content)}


def read_sealed(path: Path, known: frozenset[str]) -> dict[str, object]:
    """Read a manifest, compare it with its seal, and return it without.

    A manifest written before there were seals has none; it may then hold nothing but known keys, for the key of a seal
    can be damaged too.

    Args:
        path: the manifest.
        known: its keys.

    Raises:
        FileNotFoundError: if there is none.
        ChecksumError: if it is not what was written.
        CorruptFileError: if it is not JSON.
    """
    value = files.read_json(path)
    try:
        written = files.json_bytes(value)
    except UnicodeEncodeError as error:
        raise CorruptFileError(f"{path.name} holds half of a character", where=str(path)) from error
    if SEAL not in value:
        strange = sorted(set(value) - known)
        if strange:
            raise ChecksumError(f"{path.name} holds {strange[0]!r}, which is no key of it", where=str(path))
        return value
    content = {key: item for key, item in value.items() if key != SEAL}
    # the bytes too: 1e-5 and 1E-5 are one number, and yet a bit apart
    if value[SEAL] != files.sha256_json(content) or path.read_bytes() != written:
        raise ChecksumError(f"{path.name} is not what was written: its seal differs", where=str(path))
    return content
