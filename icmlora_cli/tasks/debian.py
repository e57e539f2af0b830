"""Texts in Debian packages.

A package is fetched with ``apt-get download``, which installs nothing and needs no administrator, and read in memory.
"""

import gzip
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from icmlora_cli.disk.files import disk_errors
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import IcmloraError

SECONDS = 300  # after which a command is given up
GZIP = b"\x1f\x8b"


def package_file(package: str) -> Path:
    """Return the path of a package's file in the cache; apt fetches it if it is not there.

    Raises:
        IcmloraError: If there is no apt, or it cannot fetch the package.
        OutOfSpaceError: If the cache's disk is full.
    """
    folder = Home.from_environment().cache / "domains"
    cached = sorted(folder.glob(f"{package}_*.deb"))
    if cached:
        return cached[-1]
    by_hand = f"put the file {package}_VERSION_all.deb of a Debian mirror into {folder}"
    if shutil.which("apt-get") is None:
        raise IcmloraError(
            f"the text is in the Debian package {package}, and there is no apt-get here",
            where=str(folder),
            hint=by_hand,
        )
    with disk_errors(folder / package):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            download = _run(["apt-get", "download", package], Path(temporary))
            fetched = sorted(Path(temporary).glob("*.deb"))
            if download.returncode != 0 or not fetched:
                lines = download.stderr.decode(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "it says no more"
                raise IcmloraError(
                    f"apt-get cannot download the Debian package {package}: {reason}",
                    where=str(folder),
                    hint=f"update its lists (apt-get update) and try again, or {by_hand}",
                )
            return fetched[0].replace(folder / fetched[0].name)


def package_version(package: str) -> str:
    """Return the version of a package, whose file is fetched if it is not in the cache; see ``package_file``."""
    return package_file(package).name.split("_")[1]


def package_texts(package: str, pattern: str) -> Iterator[str]:
    """Yield the texts of some of a package's files, ordered by path; files that are not UTF-8 are left out.

    Args:
        package: the package's name in Debian.
        pattern: a pattern of the files' paths, such as ``usr/share/man/man?/*.gz``; gzip is decompressed.

    Raises:
        IcmloraError: If the package cannot be fetched or read.
    """
    file = package_file(package)
    if shutil.which("dpkg-deb") is None:
        raise IcmloraError("reading a Debian package needs dpkg-deb", where=str(file), hint="install dpkg")
    unpacked = _run(["dpkg-deb", "--fsys-tarfile", str(file)], file.parent)
    if unpacked.returncode != 0:
        raise IcmloraError(
            f"{file.name} is not a Debian package that dpkg-deb can read",
            where=str(file),
            hint="delete it, then run the command again",
        )
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as archive:
        members = [member for member in archive if fnmatchcase(member.name.removeprefix("./"), pattern)]
        for member in sorted(members, key=lambda item: item.name):
            handle = archive.extractfile(member) if member.isfile() else None
            data = b"" if handle is None else handle.read()
            try:
                yield (gzip.decompress(data) if data.startswith(GZIP) else data).decode("utf-8")
            except UnicodeDecodeError:
                continue


def _run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise IcmloraError(f"{' '.join(command)} did not end within {SECONDS} s", where=str(folder)) from error
