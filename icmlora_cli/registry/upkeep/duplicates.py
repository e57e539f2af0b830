"""Equal checkpoints, which are found by the SHA-256 in their manifests and can be stored once with hard links.

A hard link is safe, since icmlora never writes into an existing checkpoint: it writes a new file and renames it.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from icmlora_cli.disk import files, temporary
from icmlora_cli.registry.adapters import WEIGHTS, AdapterRecord

NOT_SO = "not what its manifest says: icmlora registry verify"


@dataclass(frozen=True)
class Copy:
    """A second copy of a file.

    Args:
        path: the copy.
        same_as: the file that the copy can become a hard link to.
        sha256: the hex SHA-256 of both, as their manifests say.
        bytes: the bytes that the link frees; 0 if the copy has another name that keeps them.
    """

    path: Path
    same_as: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Left:
    """A file that stays as it is, though another one has the same SHA-256.

    Args:
        path: the file.
        bytes: the bytes that it takes.
        said: the reason why it stays, in words.
    """

    path: Path
    bytes: int
    said: str


@dataclass(frozen=True)
class Duplicates:
    """The equal checkpoints of a registry, according to their manifests.

    Args:
        copies: the files that can become hard links.
        left: the files that cannot.
        files: the number of files that are second copies.
        bytes: the bytes that those files take.
        linked_files: the number of files that are already hard links of equal ones.
        linked_bytes: the bytes that those files would take as copies.
    """

    copies: tuple[Copy, ...]
    left: tuple[Left, ...]
    files: int
    bytes: int
    linked_files: int
    linked_bytes: int


def find(records: Iterable[AdapterRecord]) -> Duplicates:
    """Return the equal checkpoints of adapters, without reading any weights."""
    checkpoints = [(record, item) for record in records for item in record.checkpoints]
    counts = Counter(item.sha256 for _, item in checkpoints)
    paths: dict[str, list[Path]] = {}
    for record, item in checkpoints:
        if counts[item.sha256] > 1:
            paths.setdefault(item.sha256, []).append(record.folder / item.folder / WEIGHTS)
    groups = [_Group.of(sha256, list(dict.fromkeys(equal))) for sha256, equal in paths.items()]
    return Duplicates(
        copies=tuple(copy for group in groups for copy in group.copies()),
        left=tuple(left for group in groups for left in group.left()),
        files=sum(max(0, len(group.inodes) - 1) for group in groups),
        bytes=sum(max(0, len(group.inodes) - 1) * group.size for group in groups),
        linked_files=sum(group.links for group in groups),
        linked_bytes=sum(group.links * group.size for group in groups),
    )


@dataclass(frozen=True)
class _Stored:
    """One file on the disk, which may have several names.

    Args:
        place: its device, owner, group and mode; a link to another file is possible only if these are equal.
        paths: its names in the registry.
        names: the number of its names anywhere.
    """

    place: tuple[int, int, int, int]
    paths: list[Path]
    names: int


@dataclass(frozen=True)
class _Group:
    """The files of one SHA-256.

    Args:
        sha256: the hex SHA-256, as the manifests say.
        size: the bytes of most of the files.
        inodes: the files of that size, those with most names first.
        odd: the files of another size, which are not what their manifest says.
    """

    sha256: str
    size: int
    inodes: tuple[_Stored, ...]
    odd: tuple[Left, ...]

    @classmethod
    def of(cls, sha256: str, paths: Sequence[Path]) -> "_Group":
        stats = [(path, os.lstat(path)) for path in paths if os.path.lexists(path)]
        stats = [(path, stat) for path, stat in stats if S_ISREG(stat.st_mode)]
        sizes = Counter(stat.st_size for _, stat in stats)
        size = sizes.most_common(1)[0][0] if sizes else 0
        inodes: dict[tuple[int, int], _Stored] = {}
        for path, stat in stats:
            if stat.st_size == size:
                place = (stat.st_dev, stat.st_uid, stat.st_gid, stat.st_mode)
                inodes.setdefault((stat.st_dev, stat.st_ino), _Stored(place, [], stat.st_nlink)).paths.append(path)
        reason = f"not of the {size} bytes of another file of its SHA-256: icmlora registry verify"
        odd = tuple(Left(path, stat.st_size, reason) for path, stat in stats if stat.st_size != size)
        return cls(sha256, size, tuple(sorted(inodes.values(), key=lambda item: -len(item.paths))), odd)

    @property
    def links(self) -> int:
        return sum(len(item.paths) - 1 for item in self.inodes)

    def copies(self) -> list[Copy]:
        firsts: dict[tuple[int, int, int, int], _Stored] = {}
        copies = []
        for item in self.inodes:
            first = firsts.setdefault(item.place, item)
            frees = self.size if item.names <= len(item.paths) else 0  # its bytes are freed with its last name
            for path in () if first is item else item.paths:
                copies.append(Copy(path, first.paths[0], self.sha256, frees if path == item.paths[-1] else 0))
        return copies

    def left(self) -> list[Left]:
        firsts: dict[tuple[int, int, int, int], Path] = {}
        for item in self.inodes:
            firsts.setdefault(item.place, item.paths[0])
        paths = list(firsts.values())
        reason = "the same weights as {}, but on another file system, or of another owner or mode: no link"
        return [*(Left(path, self.size, reason.format(paths[0])) for path in paths[1:]), *self.odd]


@dataclass(frozen=True)
class Linked:
    """What ``Linker.link`` did with a copy.

    Args:
        done: whether the copy is a hard link now.
        bytes: the bytes that were freed.
        left: the files that stay as they are, each with the reason.
    """

    done: bool
    bytes: int = 0
    left: tuple[Left, ...] = ()


@dataclass
class Linker:
    """Replaces copies by hard links; it remembers the hashes of files, so that each is read once."""

    _hashes: dict[tuple[int, int, int, int], str] = field(default_factory=dict)
    _whole: dict[Path, Path] = field(default_factory=dict)  # replaces a damaged first file by an intact copy

    def link(self, copy: Copy) -> Linked:
        """Read and compare a copy and the file that it equals, and replace the copy by a hard link to that file.

        The link is made under a temporary name first, so that nothing is read if the file system has no hard links. If
        the process is killed at any moment, the copy is still whole under its name.

        Args:
            copy: a copy that ``find`` returned.

        Raises:
            OSError: If a file cannot be read or renamed.
        """
        source = self._whole.get(copy.same_as, copy.same_as)
        link = temporary.beside(copy.path)
        try:
            os.link(source, link)
        except FileNotFoundError:  # one of the two was removed since they were found
            return Linked(False)
        except OSError as error:
            reason = f"no hard link can be made here ({error.strerror}): it and {source} are both kept"
            return Linked(False, left=(Left(copy.path, copy.bytes, reason),))
        try:
            return self._replaced(copy, source, link)
        except FileNotFoundError:
            return Linked(False)
        finally:
            link.unlink(missing_ok=True)

    def _replaced(self, copy: Copy, source: Path, link: Path) -> Linked:
        before = _identity(copy.path)
        if before == _identity(link):
            return Linked(False)
        source_intact, copy_intact = self._sha256(link) == copy.sha256, self._sha256(copy.path) == copy.sha256
        if copy_intact and not source_intact:
            self._whole[copy.same_as] = copy.path
        if not (source_intact and copy_intact):
            checked = ((source, source_intact), (copy.path, copy_intact))
            damaged = [path for path, is_intact in checked if not is_intact]
            return Linked(False, left=tuple(Left(path, path.lstat().st_size, NOT_SO) for path in damaged))
        stat = copy.path.lstat()
        if _identity(copy.path) != before:
            return Linked(False, left=(Left(copy.path, stat.st_size, "it has just been written"),))
        os.replace(link, copy.path)
        files.sync_folder(copy.path.parent)
        return Linked(True, stat.st_size if stat.st_nlink == 1 else 0)

    def _sha256(self, path: Path) -> str:
        key = _identity(path)
        if key not in self._hashes:
            self._hashes[key] = files.sha256_file(path)
        return self._hashes[key]


def _identity(path: Path) -> tuple[int, int, int, int]:
    stat = path.lstat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
