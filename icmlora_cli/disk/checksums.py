"""Checksums of files by their own content, so that a flipped bit is found whatever it makes of the file.

A manifest carries one under its key ``seal``. A safetensors file that no manifest lists, such as the saved state of a
training, carries one in its metadata.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError

SEAL = "seal"
IN_METADATA = "icmlora_sha256"
_BLANK = "0" * 64
_LONGEST_HEADER = 100_000_000  # bytes: what safetensors itself reads at most


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


def checked_metadata(metadata: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the metadata of a safetensors file with room for the checksum that ``write_checksum`` puts there."""
    return {**(metadata or {}), IN_METADATA: _BLANK}


def write_checksum(path: Path) -> None:
    """Put the checksum of a safetensors file, which was written with ``checked_metadata``, into its header.

    It is the SHA-256 of all bytes of the file, in which the checksum's own 64 characters are zeros.

    Raises:
        ValueError: if the header has no room for it.
    """
    digest, at = _digest(path)
    if at is None:
        raise ValueError(f"{path.name} was not written with checked_metadata")
    with path.open("rb+") as handle:
        handle.seek(at)
        handle.write(digest.encode())


def is_intact(path: Path) -> bool:
    """Tell whether a safetensors file is what was written; one without a checksum counts as such.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    digest, at = _digest(path)
    if at is None:
        return True
    with path.open("rb") as handle:
        handle.seek(at)
        return handle.read(len(_BLANK)) == digest.encode()


def _digest(path: Path) -> tuple[str, int | None]:
    """Return the hex SHA-256 of a file with its checksum blanked, and where that stands; None where it has none."""
    key = f'"{IN_METADATA}":"'.encode()
    with path.open("rb") as handle:
        length = handle.read(8)
        header = bytearray(handle.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER)))
        found = header.find(key)
        if found < 0:
            return "", None
        start = found + len(key)
        header[start : start + len(_BLANK)] = _BLANK.encode()
        digest = hashlib.sha256(length + header)
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest(), len(length) + start
