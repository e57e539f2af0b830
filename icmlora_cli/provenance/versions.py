"""How an output was made: versions, time, command line."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from icmlora_cli import __version__
from icmlora_cli.provenance.local_paths import shortened_word

ABOUT = "icmlora.json"  # beside what was generated: how it was made
PACKAGES = ("torch", "transformers", "peft", "safetensors")


def now() -> str:
    """Return the UTC time, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat()


def versions() -> dict[str, str]:
    """Return the versions that an output depends on."""
    found = {"icmlora": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """Return the command as it was typed, fit to be published: of each absolute path, only the last part.

    Bytes that are no UTF-8 stand as escapes.
    """
    words = shlex.join([os.path.basename(sys.argv[0]), *map(shortened_word, sys.argv[1:])])
    return words.encode("utf-8", "backslashreplace").decode("utf-8")
