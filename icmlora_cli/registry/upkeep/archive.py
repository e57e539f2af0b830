"""The archive of ``registry export``: a tar file in one zstd frame.

Its first member lists all others, each with its bytes and its SHA-256.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Literal

import zstandard
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from icmlora_cli.disk import files
from icmlora_cli.disk.home import NAME
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.adapter import FOLDER
from icmlora_cli.manifests.model import broken as manifest_error
from icmlora_cli.provenance.versions import command_line, now, versions
from icmlora_cli.registry import adapters, generators, task_record

SCHEMA = "icmlora.export/1"
LISTING = "icmlora-export.json"
BYTES_A_MARK = 24  # bytes of a listing for each bracket or comma, at least; the entry of a file has 100 bytes
SPARE_MARKS = 1000  # brackets and commas that are allowed beyond those, for versions and the command line
LEVEL = 3  # zstd's level; float weights hardly shrink at any level, and text does at this one

Kind = Literal["task", "adapter", "generator"]

_NAME = NAME.pattern
_SLUG = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,149}"
FOLDERS: Mapping[Kind, re.Pattern[str]] = {
    "task": re.compile(rf"tasks/(?P<name>{_NAME})"),
    "adapter": re.compile(rf"adapters/(?P<name>{_SLUG}/{_NAME}/{_NAME})"),
    "generator": re.compile(rf"generators/(?P<name>{_NAME})"),
}
FILES: Mapping[Kind, re.Pattern[str]] = {
    "task": re.compile(
        f"{re.escape(task_record.EXAMPLES)}|{re.escape(task_record.MANIFEST)}|"
        f"{task_record.IMAGES}/{task_record.IMAGE_NAME.pattern}"
    ),
    "adapter": re.compile(
        f"{re.escape(adapters.MANIFEST)}|{re.escape(adapters.SENSITIVITY)}|"
        f"{FOLDER.pattern}/({re.escape(adapters.CONFIG)}|{re.escape(adapters.WEIGHTS)})"
    ),
    "generator": re.compile("|".join(map(re.escape, (generators.CONFIG, generators.WEIGHTS, generators.CARD)))),
}


class Member(BaseModel):
    """One file of a thing: its path within the thing's folder, its bytes, and its hex SHA-256."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    path: str
    bytes: int = Field(ge=0, le=2**53)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Thing(BaseModel):
    """A task, adapter or generator in an archive: its folder within a registry, and its files."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    kind: Kind
    folder: str
    files: Annotated[list[Member], FailFast(), Field(min_length=1)]

    @property
    def name(self) -> str:
        """The thing's name; for an adapter, base, task and key, joined by slashes."""
        return self.folder.partition("/")[2]

    @property
    def bytes(self) -> int:
        """The bytes of all its files."""
        return sum(item.bytes for item in self.files)


class _Listing(BaseModel):
    """The first member of an archive, as JSON."""

    model_config = ConfigDict(strict=True)
    schema_: Literal["icmlora.export/1"] = Field(alias="schema")
    things: Annotated[list[Thing], FailFast(), Field(min_length=1)]  # stops at the first of perhaps millions of errors


def listing_bytes(things: Sequence[Thing]) -> bytes:
    """Return the first member of an archive, which says what it holds and how it was made."""
    made = {"created": now(), "command": command_line(), "versions": versions()}
    return files.json_bytes({"schema": SCHEMA, "made": made, "things": [item.model_dump() for item in things]})


def read_listing(data: bytes, where: Path) -> tuple[Thing, ...]:
    """Parse an archive's listing, check that every path in it is harmless, and return what the archive holds.

    Args:
        data: the bytes of the first member.
        where: the archive's path, for messages.

    Raises:
        CorruptFileError: If it is not a listing, or names a path that no task, adapter or generator has.
    """
    _check_density(data, where)
    try:
        things = tuple(_Listing.model_validate_json(data).things)
    except ValidationError as error:
        raise broken(where, f"its listing: {manifest_error(Path(LISTING), error, hint=None).message}") from error
    seen: set[str] = set()
    for thing in things:
        _check_paths(thing, where)
        paths = {f"{thing.folder}/{item.path}".casefold() for item in thing.files}
        if len(paths) < len(thing.files) or paths & seen:
            raise broken(where, f"it names a file of {thing.folder} twice")
        seen |= paths
    return things


def _check_density(data: bytes, where: Path) -> None:
    """Refuse a listing that would take far more memory than its bytes, before it is parsed.

    The entry of a file has a path and a SHA-256, so text with more brackets or commas than such entries need is not a
    listing.

    Raises:
        CorruptFileError: If there are too many of them.
    """
    if sum(map(data.count, (b"{", b"[", b","))) > len(data) // BYTES_A_MARK + SPARE_MARKS:
        raise broken(where, "its listing holds empty entries")


def _check_paths(thing: Thing, where: Path) -> None:
    refused = [] if FOLDERS[thing.kind].fullmatch(thing.folder) else [thing.folder]
    refused += [item.path for item in thing.files if not FILES[thing.kind].fullmatch(item.path)]
    if refused:
        raise broken(where, f"it names {refused[0][:200]!r}, which is no file of a {thing.kind}")


def broken(where: Path, what: str) -> CorruptFileError:
    """Return the error for an archive that cannot be used."""
    return CorruptFileError(
        f"{where.name} is no usable export: {what}",
        where=str(where),
        hint="export it again where it came from: icmlora registry export -o FILE.tar.zst",
    )


def thing_of(kind: Kind, root: Path, folder: Path, paths: Sequence[Path]) -> Thing:
    """Return a thing as an archive lists it; its manifest is the last of its files.

    Args:
        kind: what the thing is.
        root: the root folder of the registry.
        folder: the thing's folder.
        paths: the thing's files.
    """
    members = [
        Member(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=files.sha256_file(path))
        for path in sorted(paths, key=lambda path: (path.parent == folder, path.suffix == ".json", path))
    ]
    return Thing(kind=kind, folder=folder.relative_to(root).as_posix(), files=members)


@dataclass
class _Hashing:
    """A file that is hashed while tarfile reads it."""

    source: IO[bytes]

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.source.read(size)
        self.digest.update(data)
        return data


def write_archive(path: Path, root: Path, things: Sequence[Thing]) -> None:
    """Write an archive.

    Args:
        path: the archive to write.
        root: the root folder of the registry.
        things: the things to write, as ``thing_of`` lists them.

    Raises:
        CorruptFileError: If a file has changed since it was listed.
    """
    with path.open("wb") as target:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        with (
            compressor.stream_writer(target, closefd=False) as writer,
            tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            data = listing_bytes(things)
            tar.addfile(_info(LISTING, len(data)), io.BytesIO(data))
            for thing in things:
                for item in thing.files:
                    _add(tar, root / thing.folder / item.path, f"{thing.folder}/{item.path}", item)


def _add(tar: tarfile.TarFile, path: Path, name: str, item: Member) -> None:
    with path.open("rb") as source:
        hashing = _Hashing(source)
        try:
            tar.addfile(_info(name, item.bytes), hashing)
        except OSError as error:
            if error.errno is not None:
                raise
            raise _changed(path) from error  # the file is shorter than listed: tarfile's own error has no number
        if hashing.digest.hexdigest() != item.sha256:
            raise _changed(path)


def _changed(path: Path) -> CorruptFileError:
    return CorruptFileError(
        f"{path.name} changed while it was exported", where=str(path), hint="run the command again: nothing was written"
    )


def _info(name: str, size: int) -> tarfile.TarInfo:
    """Return a header without owner and time, so that the same things give the same bytes after the listing."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info
