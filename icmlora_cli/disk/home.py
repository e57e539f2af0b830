"""The folders of a registry: ``ICMLORA_HOME`` holds the user's own work, ``ICMLORA_CACHE`` what can be made again."""

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
        root: the folder that holds ``tasks/``, ``adapters/`` and ``generators/``.
        cache: the folder that holds ``bases/``, ``vectors/`` and ``served/``.
    """

    root: Path
    cache: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """Return the folders that ``ICMLORA_HOME`` and ``ICMLORA_CACHE`` name, or else those that the platform has.

        Raises:
            UsageError: If one of them is set but empty, is a relative path, names a user that does not exist, is a
                file, or cannot be read.
        """
        import platformdirs

        root = _folder("ICMLORA_HOME", platformdirs.user_data_dir("icmlora"))
        return cls(root=root, cache=_folder("ICMLORA_CACHE", platformdirs.user_cache_dir("icmlora")))

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
        """The folder of adapters that were prepared for a vLLM server."""
        return self.cache / "served"


def _folder(variable: str, default: str) -> Path:
    """Return the folder that an environment variable names, or the default where the variable is not set."""
    value = os.environ.get(variable)
    if value is None:
        return Path(default).absolute()
    hint = f"set {variable} to the whole path of a folder, or unset it"
    if not value.strip():
        raise UsageError(f"{variable} is set, and empty", hint=hint)
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{variable} names a user that does not exist: {value!r}", hint=hint) from error
    if not path.is_absolute():
        raise UsageError(f"{variable} is {value!r}, which is another folder wherever a command runs", hint=hint)
    try:
        is_file = path.exists() and not path.is_dir()
    except OSError as error:
        raise UsageError(f"{variable}: {error.strerror}", where=str(path), hint=hint) from error
    if is_file:
        raise UsageError(f"{variable} is {value!r}, which is no folder", where=str(path), hint=hint)
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"{variable} is {value!r}, which may not be read", where=str(path), hint=hint)
    return path


def checked_name(name: str, what: str) -> str:
    """Return ``name`` if it can be a folder's name on every system.

    Args:
        name: the name to check.
        what: the kind of thing that it names, such as ``task``, for the message.

    Raises:
        UsageError: If it is not 1 to 100 letters, digits, ``.``, ``_`` or ``-``, the first a letter or digit.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name[:120]!r} cannot be the name of a {what}",
            hint=NAME_RULE,
        )
    return name
