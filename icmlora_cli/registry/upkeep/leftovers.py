"""What killed and finished processes left in a registry: temporary files and folders, and training states."""

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
        path: the file or folder.
        target: the path that it was to be renamed to, or had before.
        in_use: whether a running process may still be writing it.
        only_copy: whether it was at ``target``, and nothing is there now, since the process that replaced it was
            killed between two renames.
    """

    path: Path
    target: Path
    in_use: bool
    only_copy: bool


def temporaries(home: Home) -> tuple[Leftover, ...]:
    """Return the temporary files and folders of a registry and its cache, ordered by path."""
    paths = sorted({path for root in (home.root, home.cache) for path in _walk(root)})
    parsed = [(path, temporary.parse(path.name)) for path in paths]
    named = [(path, item.role, path.with_name(item.name)) for path, item in parsed if item is not None]
    newest: dict[Path, Path] = {}
    for path, role, target in named:
        if role == "old" and (target not in newest or _age(path) >= _age(newest[target])):
            newest[target] = path
    return tuple(
        Leftover(path, target, temporary.in_use(path), newest.get(target) == path and not os.path.lexists(target))
        for path, _, target in named
    )


def _age(path: Path) -> int:
    return path.lstat().st_ctime_ns


def _walk(root: Path) -> Iterator[Path]:
    waiting, quarantine = [os.fspath(root)], os.fspath(root / QUARANTINE)
    while waiting:
        folder = waiting.pop()
        with suppress(OSError), os.scandir(folder) as entries:  # removed meanwhile, or not readable for this user
            for entry in entries:
                if entry.name.startswith(files.TEMPORARY):
                    yield Path(entry.path)
                elif folder != quarantine and entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)  # not the content of quarantine, which was reported when it was moved


@dataclass(frozen=True)
class State:
    """The saved state of a training.

    Args:
        path: the file.
        finished: whether the training is finished, so that nothing will read the state again.
        readable: whether the file is as long as its header says, and what its checksum says.
        steps: the optimizer steps before it was saved; None if it does not say.
        name: the name of the task, generator or base model of the training.
        kind: ``adapter``, ``generator`` or ``baseline``.
    """

    path: Path
    finished: bool
    readable: bool
    steps: int | None
    name: str
    kind: str


def states(home: Home) -> tuple[State, ...]:
    """Return the training states of harvests, of generators, and of the multi-task LoRAs of evaluations."""
    results = [_state(path, path.parent / adapters.MANIFEST, path.parts[-3], "adapter") for path in _harvests(home)]
    results += [_of_generator(home, path) for path in sorted(home.generators.glob(f"[!.]*{generators.STATE}"))]
    folder = home.root / "baselines"
    results += [
        _state(path, path.parent / adapters.CONFIG, path.parts[-3], "baseline")
        for path in sorted(folder.glob(f"*/*/{adapters.STATE}"))
        if not temporary.within(path, folder)
    ]
    return tuple(results)


def _harvests(home: Home) -> list[Path]:
    paths = home.adapters.glob(f"*/*/*/{adapters.STATE}")
    return sorted(path for path in paths if not temporary.within(path, home.adapters))


def _state(path: Path, last: Path, name: str, kind: str) -> State:
    steps = safetensors_metadata(path).get("step", "")
    return State(path, last.is_file(), _readable(path), int(steps) if steps.isdigit() else None, name, kind)


def _of_generator(home: Home, path: Path) -> State:
    """Return the state of a generator's training, which is finished if the generator of that name has its key."""
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
