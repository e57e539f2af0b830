"""What killed and finished work left in a registry: temporary files and folders, and training states."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from icmlora_cli.disk import checksums, files, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.disk.safetensors_header import check_safetensors, safetensors_metadata
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.remains import read_remains
from icmlora_cli.registry import adapters, generators

QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Leftover:
    """A temporary file or folder.

    Args:
        path: where it is.
        target: what it was to become, or was.
        in_use: a running process may still be at work on it.
        only_copy: it is what ``target`` was, and nothing is there now: the replacement was cut between two renames.
    """

    path: Path
    target: Path
    in_use: bool
    only_copy: bool


def temporaries(home: Home) -> tuple[Leftover, ...]:
    """Return the temporary files and folders of a registry and its cache, by path."""
    paths = sorted({path for root in (home.root, home.cache) for path in _walk(root)})
    said = [(path, temporary.parse(path.name)) for path in paths]
    found = [(path, item.role, path.with_name(item.name)) for path, item in said if item is not None]
    newest: dict[Path, Path] = {}
    for path, role, target in found:
        if role == "old" and (target not in newest or _age(path) >= _age(newest[target])):
            newest[target] = path
    return tuple(
        Leftover(path, target, temporary.in_use(path), newest.get(target) == path and not os.path.lexists(target))
        for path, _, target in found
    )


def _age(path: Path) -> int:
    return path.lstat().st_ctime_ns


def _walk(root: Path) -> Iterator[Path]:
    waiting, told = [os.fspath(root)], os.fspath(root / QUARANTINE)
    while waiting:
        at = waiting.pop()
        with suppress(OSError), os.scandir(at) as entries:  # gone since, or not ours to read
            for entry in entries:
                if entry.name.startswith(files.TEMPORARY):
                    yield Path(entry.path)
                elif at != told and entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)  # but what quarantine holds was told of when it was put there


@dataclass(frozen=True)
class State:
    """The saved state of a training.

    Args:
        path: the file.
        finished: what it was for is there, whole; nothing reads the state again.
        readable: it is as long as its header says, and what its checksum says.
        steps: optimizer steps behind it; None where it does not say.
        name: of the task, generator or base that is trained.
        kind: ``adapter``, ``generator`` or ``baseline``.
    """

    path: Path
    finished: bool
    readable: bool
    steps: int | None
    name: str
    kind: str


def states(home: Home) -> tuple[State, ...]:
    """Return the training states of harvests, generators and the multi-task LoRAs of evaluations."""
    found = [_state(path, path.parent / adapters.MANIFEST, path.parts[-3], "adapter") for path in _harvests(home)]
    found += [_of_generator(home, path) for path in sorted(home.generators.glob(f"[!.]*{generators.STATE}"))]
    folder = home.root / "baselines"
    found += [
        _state(path, path.parent / adapters.CONFIG, path.parts[-3], "baseline")
        for path in sorted(folder.glob(f"*/*/{adapters.STATE}"))
        if not temporary.within(path, folder)
    ]
    return tuple(found)


def _harvests(home: Home) -> list[Path]:
    paths = home.adapters.glob(f"*/*/*/{adapters.STATE}")
    return sorted(path for path in paths if not temporary.within(path, home.adapters))


def _state(path: Path, last: Path, name: str, kind: str) -> State:
    steps = safetensors_metadata(path).get("step", "")
    return State(path, last.is_file(), _readable(path), int(steps) if steps.isdigit() else None, name, kind)


def _of_generator(home: Home, path: Path) -> State:
    """Return a training's state; it is finished when the generator of that name has the key of this very training."""
    name = path.name.removesuffix(generators.STATE)
    manifest = home.generators / name / generators.CONFIG
    key = read_remains(manifest).key
    finished = key is not None and key == safetensors_metadata(path).get("identity")
    return replace(_state(path, manifest, name, "generator"), finished=finished)


def _readable(path: Path) -> bool:
    try:
        check_safetensors(path)
        return checksums.is_intact(path)
    except (CorruptFileError, OSError):
        return False
