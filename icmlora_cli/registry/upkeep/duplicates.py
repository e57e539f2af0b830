"""Equal checkpoints: found by the SHA-256 in their manifests, and stored once by hard links.

A link is safe because nothing here writes into a checkpoint: what changes is written beside it and renamed.
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
    """A file that is stored once more.

    Args:
        path: the file.
        same_as: the file that it can become a hard link to.
        sha256: of both, as their manifests say.
        bytes: that the link frees; 0 while another name keeps them.
    """

    path: Path
    same_as: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Left:
    """A file that stays as it is.

    Args:
        path: the file.
        bytes: that it takes.
        said: why it stays.
    """

    path: Path
    bytes: int
    said: str


@dataclass(frozen=True)
class Duplicates:
    """Equal checkpoints, by their manifests.

    Args:
        copies: what can become a link.
        left: what cannot.
        files: how many files hold what another one holds.
        bytes: that those take.
        linked_files: how many are hard links of equal ones already.
        linked_bytes: that those would take, and do not.
    """

    copies: tuple[Copy, ...]
    left: tuple[Left, ...]
    files: int
    bytes: int
    linked_files: int
    linked_bytes: int


def find(records: Iterable[AdapterRecord]) -> Duplicates:
    """Return the equal checkpoints of adapters; reads no weights, and asks only for the sizes of what has an equal."""
    kept = [(record, item) for record in records for item in record.checkpoints]
    counts = Counter(item.sha256 for _, item in kept)
    paths: dict[str, list[Path]] = {}
    for record, item in kept:
        if counts[item.sha256] > 1:
            paths.setdefault(item.sha256, []).append(record.folder / item.folder / WEIGHTS)
    groups = [_Group.of(sha256, list(dict.fromkeys(found))) for sha256, found in paths.items()]
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
    """One file on the disk, whatever its names: device, owner and mode; names in the registry; names anywhere."""

    place: tuple[int, int, int, int]
    paths: list[Path]
    names: int


@dataclass(frozen=True)
class _Group:
    """Files of one SHA-256 and size: ``inodes``, those with most names first; ``odd`` are those of another size."""

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
        found: dict[tuple[int, int], _Stored] = {}
        for path, stat in stats:
            if stat.st_size == size:
                place = (stat.st_dev, stat.st_uid, stat.st_gid, stat.st_mode)
                found.setdefault((stat.st_dev, stat.st_ino), _Stored(place, [], stat.st_nlink)).paths.append(path)
        said = f"not of the {size} bytes of another file of its SHA-256: icmlora registry verify"
        odd = tuple(Left(path, stat.st_size, said) for path, stat in stats if stat.st_size != size)
        return cls(sha256, size, tuple(sorted(found.values(), key=lambda item: -len(item.paths))), odd)

    @property
    def links(self) -> int:
        return sum(len(item.paths) - 1 for item in self.inodes)

    def copies(self) -> list[Copy]:
        firsts: dict[tuple[int, int, int, int], _Stored] = {}
        found = []
        for item in self.inodes:
            first = firsts.setdefault(item.place, item)
            frees = self.size if item.names <= len(item.paths) else 0  # with the last of its names
            for path in () if first is item else item.paths:
                found.append(Copy(path, first.paths[0], self.sha256, frees if path == item.paths[-1] else 0))
        return found

    def left(self) -> list[Left]:
        firsts: dict[tuple[int, int, int, int], Path] = {}
        for item in self.inodes:
            firsts.setdefault(item.place, item.paths[0])
        paths = list(firsts.values())
        said = "the same weights as {}, but on another file system, or of another owner or mode: no link"
        return [*(Left(path, self.size, said.format(paths[0])) for path in paths[1:]), *self.odd]


@dataclass(frozen=True)
class Linked:
    """What became of a copy.

    Args:
        done: it is a link now.
        bytes: freed by it.
        left: what stays as it is, and why.
    """

    done: bool
    bytes: int = 0
    left: tuple[Left, ...] = ()


@dataclass
class Linker:
    """Replaces copies by hard links; what it has read once, it does not read again."""

    _hashes: dict[tuple[int, int, int, int], str] = field(default_factory=dict)
    _whole: dict[Path, Path] = field(default_factory=dict)  # instead of a first file that is damaged

    def link(self, copy: Copy) -> Linked:
        """Replace a copy by a hard link to the file that it equals, once both have been read and compared.

        The link is made under a temporary name first: where the file system has none, nothing is read. Killed at any
        moment, the copy is whole under its name.

        Args:
            copy: what ``find`` returned.

        Raises:
            OSError: If a file cannot be read or renamed.
        """
        source = self._whole.get(copy.same_as, copy.same_as)
        link = temporary.beside(copy.path)
        try:
            os.link(source, link)
        except FileNotFoundError:  # one of them has just been removed
            return Linked(False)
        except OSError as error:
            said = f"no hard link can be made here ({error.strerror}): it and {source} are both kept"
            return Linked(False, left=(Left(copy.path, copy.bytes, said),))
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
        whole, equal = self._sha256(link) == copy.sha256, self._sha256(copy.path) == copy.sha256
        if equal and not whole:
            self._whole[copy.same_as] = copy.path
        if not (whole and equal):
            bad = [path for path, good in ((source, whole), (copy.path, equal)) if not good]
            return Linked(False, left=tuple(Left(path, path.lstat().st_size, NOT_SO) for path in bad))
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
