"""Checksums that files carry of their own content, so that any damage is found, even where the file still parses.

A manifest carries one under its key ``seal``. A safetensors file that no manifest lists, such as the saved state of a
training or a cached task vector, carries one in its metadata.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError

KEY = "seal"  # of a manifest's own checksum
IN_METADATA = "icmlora_sha256"
_BLANK = "0" * 64  # stands in place of a checksum while it is computed
_LONGEST_HEADER = 100_000_000  # bytes; safetensors itself reads no longer header


class ChecksumError(CorruptFileError):
    """Raised for a manifest that can be parsed, but is not what was written."""


def write_manifest(path: Path, value: Mapping[str, object]) -> None:
    """Write a manifest with its checksum, whole or not at all.

    Raises:
        OutOfSpaceError: If the disk is full.
    """
    files.write_json(path, with_checksum(value))


def with_checksum(value: Mapping[str, object]) -> dict[str, object]:
    """Return a manifest's content with its checksum as the last key; a checksum that it had is replaced."""
    content = json.loads(json.dumps({key: item for key, item in value.items() if key != KEY}))
    return dict(content) | {KEY: files.sha256_json(content)}


def read_checked(path: Path, known: frozenset[str]) -> dict[str, object]:
    """Read a manifest, compare it with its checksum, and return its content without the checksum.

    A manifest that an early version wrote has no checksum. It may then hold nothing but known keys, since an unknown
    key may be a damaged ``seal``.

    Args:
        path: the manifest.
        known: the keys that a manifest of this kind may hold.

    Raises:
        FileNotFoundError: If there is no such file.
        ChecksumError: If the manifest is not what was written.
        CorruptFileError: If the manifest is not a JSON object, or not valid Unicode.
    """
    value = files.read_json(path)
    content = {key: item for key, item in value.items() if key != KEY}
    try:
        digest = files.sha256_json(content)
        if KEY not in value:
            unknown = sorted(set(value) - known)
            if unknown:
                raise ChecksumError(f"{path.name} holds {unknown[0]!r}, which is no key of it", where=str(path))
            return value
        # The bytes are compared too, since a flipped bit can make 1E-5 of 1e-5, which is the same number.
        intact = value[KEY] == digest and _is_as_written(path.read_bytes(), value)
    except UnicodeEncodeError as error:
        raise CorruptFileError(f"{path.name} holds half of a character", where=str(path)) from error
    if not intact:
        raise ChecksumError(f"{path.name} is not what was written: its checksum differs", where=str(path))
    return content


def _is_as_written(data: bytes, value: Mapping[str, object]) -> bool:
    """Tell whether a manifest's bytes are those that would be written, piece by piece up to the first difference.

    Deep lists are many times as long with an indent as without one.
    """
    start = 0
    for piece in map(str.encode, json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value)):
        if not data.startswith(piece, start):
            return False
        start += len(piece)
    return data[start:] == b"\n"


def checked_metadata(metadata: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the metadata of a safetensors file with room for the checksum that ``write_checksum`` puts there.

    Args:
        metadata: the other metadata of the file, if it has any.
    """
    return {**(metadata or {}), IN_METADATA: _BLANK}


def write_checksum(path: Path) -> None:
    """Put a safetensors file's checksum into its header; the file was written with ``checked_metadata``.

    The checksum is the SHA-256 of all bytes of the file, computed while its own 64 characters are zeros.

    Raises:
        ValueError: If the header has no room for a checksum.
    """
    digest, offset = _digest(path)
    if offset is None:
        raise ValueError(f"{path.name} was not written with checked_metadata")
    with path.open("rb+") as handle:
        handle.seek(offset)
        handle.write(digest.encode())


def is_intact(path: Path, *, required: bool = False) -> bool:
    """Tell whether a safetensors file is what was written.

    Args:
        path: The file.
        required: Whether the file must have a checksum; otherwise a file without one counts as intact.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    digest, offset = _digest(path)
    if offset is None:
        return not required
    with path.open("rb") as handle:
        handle.seek(offset)
        return handle.read(len(_BLANK)) == digest.encode()


def _digest(path: Path) -> tuple[str, int | None]:
    """Return the hex SHA-256 of a file whose checksum is blanked, and the checksum's offset in bytes.

    The offset is None, and the digest empty, where the file has no checksum.
    """
    key = f'"{IN_METADATA}":"'.encode()
    with path.open("rb") as handle:
        length = handle.read(8)
        header = bytearray(handle.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER)))
        key_start = header.find(key)
        if key_start < 0:
            return "", None
        start = key_start + len(key)
        header[start : start + len(_BLANK)] = _BLANK.encode()
        digest = hashlib.sha256(length + header)
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest(), len(length) + start
