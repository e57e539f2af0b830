"""Where a foreign adapter comes from: a PEFT folder, a folder of them, or the model hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.errors import NotFoundError, UnsupportedAdapterError
from icmlora_cli.registry.base_files import licence_of
from icmlora_cli.weights.foreign.config import CONFIG
from icmlora_cli.weights.foreign.headers import PICKLE_ADVICE, read_header, sniff
from icmlora_cli.weights.foreign.keys import sorted_out
from icmlora_cli.weights.foreign.read import PICKLE, WEIGHTS, check_other_formats
from icmlora_cli.workflows.base.pull import offline_by_environment
from icmlora_cli.workflows.base.sources import HubError, cached_snapshot, hub_snapshot
from icmlora_cli.workflows.progress import OnProgress, silent

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
BESIDE = ("README.md", "LICENSE*")


@dataclass(frozen=True)
class FoundAdapter:
    """A PEFT folder on this machine.

    Args:
        folder: holds ``adapter_config.json``.
        source: the hub id that it came from, or the name of its folder; records hold it, and no path.
        revision: the hub's commit; None for paths.
        licence: that its card, or that of the folder above it, names.
    """

    folder: Path
    source: str
    revision: str | None
    licence: str | None

    @property
    def name(self) -> str:
        """The folder's name; of a hub repository, the repository's."""
        return self.source.rsplit("/", 1)[-1] if self.revision == self.folder.name else self.folder.name

    @property
    def step(self) -> int | None:
        """The number that the name ends in, as that of ``checkpoint-200``."""
        number = re.search(r"(\d{1,9})$", self.folder.name)
        return int(number.group(1)) if number and self.revision != self.folder.name else None


def find_sources(
    source: str,
    *,
    allow_pickle: bool = False,
    offline: bool = False,
    most: int | None = None,
    on_progress: OnProgress = silent,
) -> tuple[FoundAdapter, ...]:
    """Return the adapters that a path or hub id stands for, in the order of the numbers in their names.

    Args:
        source: a PEFT folder, a folder whose folders are such, or a hub id.
        allow_pickle: fetch ``adapter_model.bin`` from the hub too.
        offline: fetch nothing.
        most: bytes to fetch at most.
        on_progress: told of downloads.

    Raises:
        NotFoundError: if there is no adapter there, or the hub does not hand it out.
        UnsupportedAdapterError: if what is there is of another format.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _within(path.absolute(), path.resolve().name, None)
    if path.exists():
        _check_file(path.absolute())
    if not HUB_ID.fullmatch(source) or source.startswith((".", "~", "/")):
        raise NotFoundError(
            f"there is no {source[:200]!r}", where=str(path.absolute()), hint="give a PEFT folder, or organisation/name"
        )
    snapshot = _from_hub(source, allow_pickle, offline or offline_by_environment(), most, on_progress)
    return _within(snapshot, source, snapshot.name)


def _within(folder: Path, source: str, revision: str | None) -> tuple[FoundAdapter, ...]:
    licence = licence_of(folder)
    if (folder / CONFIG).is_file():
        return (FoundAdapter(folder, source, revision, licence),)
    inner = [path for path in folder.iterdir() if path.is_dir() and (path / CONFIG).is_file()]
    if not inner:
        check_other_formats(folder)
        raise NotFoundError(
            f"neither the folder nor a folder in it holds {CONFIG}",
            where=str(folder),
            hint="give the folder that PEFT's save_pretrained wrote, or one that holds several of them",
        )
    ordered = sorted(inner, key=lambda path: _natural(path.name))
    return tuple(
        FoundAdapter(path, f"{source}/{path.name}" if revision else path.name, revision, licence_of(path) or licence)
        for path in ordered
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which checkpoint-20 comes before checkpoint-100."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _check_file(path: Path) -> None:
    """Say what a single file is, and what to give instead.

    Raises:
        IcmloraError: always.
    """
    sniff(path)
    if path.suffix == ".safetensors":
        sorted_out(read_header(path), str(path))
    if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}:
        raise UnsupportedAdapterError(f"{path.name} is a Python pickle", where=str(path), hint=PICKLE_ADVICE)
    raise NotFoundError(
        f"{path.name} is a file, and an adapter is a folder with {CONFIG} and {WEIGHTS}",
        where=str(path),
        hint=f"icmlora adapter import {path.parent}",
    )


def _from_hub(source: str, allow_pickle: bool, offline: bool, most: int | None, on_progress: OnProgress) -> Path:
    names = [CONFIG, WEIGHTS, *((PICKLE,) if allow_pickle else ())]
    at_root, below = [*names, *BESIDE], [*(f"*/{name}" for name in names), *BESIDE]
    cached = cached_snapshot(source, allowed=at_root, ignored=(), holds=None)
    if offline:
        if cached is None:
            raise NotFoundError(
                f"adapter {source} is not on this machine, and offline mode is on",
                where="the hub's cache",
                hint=f"icmlora adapter import {source} with a network, without --offline and HF_HUB_OFFLINE",
            )
        return cached
    try:
        snapshot = hub_snapshot(source, source, on_progress, allowed=at_root, ignored=(), most=most)
        if not (snapshot / CONFIG).is_file():
            snapshot = hub_snapshot(source, source, on_progress, allowed=below, ignored=(), most=most)
    except HubError as fault:
        if cached is not None:
            return cached
        raise NotFoundError(
            f"adapter {source} is not on this machine, and the hub did not hand it out ({fault})",
            where="the hub's cache, then the hub",
            hint="check the name; for a gated one: hf auth login. Or give a folder on this machine",
        ) from fault
    if (snapshot / CONFIG).is_file() and not any((snapshot / name).is_file() for name in names[1:]):
        raise UnsupportedAdapterError(
            f"{source} holds no {WEIGHTS}" + (f" and no {PICKLE}" if allow_pickle else ""),
            where=source,
            hint="where it has adapter_model.bin, a Python pickle: " + PICKLE_ADVICE,
        )
    return snapshot
