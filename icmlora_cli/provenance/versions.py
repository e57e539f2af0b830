"""How an output was made: the versions of the packages, the time, and the command line."""

import os
import platform
import re
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from icmlora_cli import __version__
from icmlora_cli.provenance.local_paths import shortened_word

ABOUT = "icmlora.json"  # the file beside an output that says how it was made
PACKAGES = ("torch", "transformers", "peft", "safetensors")


def now() -> str:
    """Return the present time in UTC, as ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat()


def versions() -> dict[str, str]:
    """Return the versions of icmlora, Python and the packages that an output depends on."""
    by_package = {"icmlora": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            continue
    return by_package


def command_line() -> str:
    """Return the command as it was typed, with each path cut to its last part so that it can be published.

    A relative path is known by its folder, which exists. Bytes that are not UTF-8 are written as escapes.
    """
    words = [_without_folder(shortened_word(word)) for word in sys.argv[1:]]
    return shlex.join([os.path.basename(sys.argv[0]), *words]).encode("utf-8", "backslashreplace").decode("utf-8")


def _without_folder(word: str) -> str:
    """Return a word of a command line, whose relative path is cut to its last part, in ``--option=PATH`` too."""
    option = re.match(r"--[^=]*=|-[A-Za-z]|", word).group()  # type: ignore[union-attr]  # it matches the empty text
    folder, name = os.path.split(word[len(option) :].rstrip("/"))
    return f"{option}{name}" if folder and Path(folder).is_dir() else word
