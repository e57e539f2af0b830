"""Where things live: ``ICMLORA_HOME`` (what is yours) and ``ICMLORA_CACHE`` (what can be fetched again)."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_RULE = "use 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit"


@dataclass(frozen=True)
class Home:
    """The folders of one registry.

    Args:
        root: holds ``tasks/``, ``adapters/`` and ``generators/``.
        cache: holds ``bases/``, ``vectors/`` and ``served/``.
    """

    root: Path
    cache: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """Return the folders that ``ICMLORA_HOME`` and ``ICMLORA_CACHE`` name, else the platform's own."""
        import platformdirs

        root = os.environ.get("ICMLORA_HOME") or platformdirs.user_data_dir("icmlora")
        cache = os.environ.get("ICMLORA_CACHE") or platformdirs.user_cache_dir("icmlora")
        return cls(root=Path(root).expanduser().absolute(), cache=Path(cache).expanduser().absolute())

    @property
    def tasks(self) -> Path:
        """The folder of registered tasks."""
        return self.root / "tasks"

    @property
    def adapters(self) -> Path:
        """The folder of harvested adapters."""
        return self.root / "adapters"

    @property
    def generators(self) -> Path:
        """The folder of trained generators."""
        return self.root / "generators"

    @property
    def bases(self) -> Path:
        """The folder of base models that were fetched or converted."""
        return self.cache / "bases"

    @property
    def vectors(self) -> Path:
        """The folder of cached task vectors."""
        return self.cache / "vectors"

    @property
    def served(self) -> Path:
        """The folder of adapters that were made for a vLLM server."""
        return self.cache / "served"


def checked_name(name: str, what: str) -> str:
    """Return ``name`` if it can be a folder name everywhere.

    Raises:
        UsageError: if it holds anything but letters, digits, ``.``, ``_``, ``-``, or is empty or over 100 long.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name[:120]!r} cannot be the name of a {what}",
            hint=NAME_RULE,
        )
    return name
