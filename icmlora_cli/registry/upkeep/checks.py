"""Checks whether a task, an adapter or a generator is what its manifest says, with every file of its folder."""

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec

from icmlora_cli.disk import checksums, files
from icmlora_cli.disk.leases import is_marker
from icmlora_cli.disk.safetensors_header import check_safetensors
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.adapter import AdapterCheckpoint, AdapterManifest
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.manifests.task import TaskManifest
from icmlora_cli.registry import adapters, generators, task_record
from icmlora_cli.registry.adapters import AdapterRecord
from icmlora_cli.registry.task_record import Task, data_hash
from icmlora_cli.tasks.splits import PARTS

P = ParamSpec("P")
Kind = Literal["missing", "truncated", "changed", "unreadable", "unlisted"]


@dataclass(frozen=True)
class Flaw:
    """What is wrong with one file; ``survey`` makes a ``Finding`` of it.

    Args:
        kind: ``missing``, ``truncated`` (shorter than it should be), ``changed`` (with another hash), ``unreadable``
            (not in its format) or ``unlisted`` (not named by a manifest).
        path: the file.
        what: what is wrong, in words.
    """

    kind: Kind
    path: Path
    what: str


def _unreadable_is_a_flaw(
    check: Callable[Concatenate[Path, P], list[Flaw]],
) -> Callable[Concatenate[Path, P], list[Flaw]]:
    """Make a check return a flaw for a file that the system cannot read, so that the survey goes on."""

    @functools.wraps(check)
    def checked(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> list[Flaw]:
        try:
            return check(path, *args, **kwargs)
        except FileNotFoundError:  # it was removed meanwhile, which the caller handles
            raise
        except OSError as error:
            where = Path(os.fsdecode(error.filename)) if error.filename else path
            return [Flaw("unreadable", where, f"it cannot be read: {error.strerror}")]

    return checked


@_unreadable_is_a_flaw
def task_flaws(folder: Path, name: str, *, quick: bool = False) -> list[Flaw]:
    """Return what is wrong with a task.

    Args:
        folder: the task's folder, which has another name while it is moved.
        name: the task's name.
        quick: whether to leave the examples unread.
    """
    images = task_record.IMAGES
    named = {f"{images}/{name}" for name in _pictures(folder / task_record.EXAMPLES)}
    flaws = _strangers(folder, {task_record.MANIFEST, task_record.EXAMPLES, *([images] if named else [])})
    if named and (folder / images).is_dir():
        flaws += _strangers(folder / images, {Path(name).name for name in named})
    of_manifest = manifest_flaws(folder / task_record.MANIFEST, TaskManifest.known_keys())
    if of_manifest:
        return of_manifest + flaws
    try:
        task = Task.read(folder, name)
    except CorruptFileError as error:
        return [Flaw("unreadable", folder / task_record.MANIFEST, error.message), *flaws]
    path = folder / task_record.EXAMPLES
    if not path.is_file():
        return [Flaw("missing", path, "its examples are missing"), *flaws]
    missing = [name for name in sorted(named) if not (folder / name).is_file()]
    flaws += [Flaw("missing", folder / name, "an image of its examples is missing") for name in missing]
    if not quick:
        flaws += _examples_flaws(path, task)
        flaws += [
            Flaw("changed", folder / name, "not the image that was registered: another SHA-256")
            for name in sorted(named.difference(missing))
            if files.sha256_file(folder / name) != Path(name).stem
        ]
    return flaws


def _pictures(path: Path) -> set[str]:
    """Return the names of the images that a file of examples names; none where it cannot be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        names = {row["image"] for row in rows if "image" in row}
        return {name for name in names if task_record.IMAGE_NAME.fullmatch(name)}
    except (OSError, ValueError, TypeError, RecursionError):
        return set()


def _examples_flaws(path: Path, task: Task) -> list[Flaw]:
    if files.sha256_file(path) != task.examples_sha256:
        data = path.read_bytes()
        lines, expected = data.count(b"\n"), sum(task.counts.values())
        if lines < expected:
            return [Flaw("truncated", path, f"{lines} whole lines instead of {expected}")]
        return [Flaw("changed", path, "not the examples that were registered: another SHA-256")]
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        counts = {part: sum(row["part"] == part for row in rows) for part in PARTS}
        well_formed = all(isinstance(row[key], str) for row in rows for key in ("input", "output"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return [Flaw("unreadable", path, "not lines of input, output and part")]
    same = data_hash(rows, task.template, task.descriptions) == task.data_hash and counts == dict(task.counts)
    return [] if same and well_formed else [Flaw("changed", path, "not what data_hash or counts in task.json say")]


@_unreadable_is_a_flaw
def adapter_flaws(folder: Path, base: str, task: str, key: str, *, quick: bool = False) -> list[Flaw]:
    """Return what is wrong with a finished adapter.

    Args:
        folder: the adapter's folder.
        base: the name of its base model's folder.
        task: the name of its task.
        key: the adapter's key.
        quick: whether to compare sizes instead of hashes.
    """
    path = folder / adapters.MANIFEST
    of_manifest = manifest_flaws(path, AdapterManifest.known_keys())
    if of_manifest:
        return of_manifest
    try:
        record = adapters.read_record(path)
    except CorruptFileError as error:
        return [Flaw("unreadable", path, error.message)]
    if (record.base, record.task, record.key) != (base, task, key):
        return [Flaw("unreadable", path, f"it is the manifest of {record.base}/{record.task}/{record.key}")]
    beside = {adapters.SENSITIVITY} if record.sensitivity is not None else set[str]()
    flaws = [
        flaw
        for flaw in _strangers(
            folder, {adapters.MANIFEST, adapters.STATE, *beside, *(item.folder for item in record.checkpoints)}
        )
        if not is_marker(flaw.path.name)
    ]
    for checkpoint in record.checkpoints:
        flaws += _checkpoint_flaws(record, checkpoint, folder / checkpoint.folder, quick=quick)
    if record.sensitivity is not None:
        path, sha256 = folder / adapters.SENSITIVITY, record.sensitivity.sha256
        flaws += _weights_flaws(path, sha256, what="mean squared gradients", quick=quick)
    return flaws


def _checkpoint_flaws(record: AdapterRecord, item: AdapterCheckpoint, folder: Path, *, quick: bool) -> list[Flaw]:
    weights, config = folder / adapters.WEIGHTS, folder / adapters.CONFIG
    flaws = _strangers(folder, {adapters.WEIGHTS, adapters.CONFIG}) if folder.is_dir() else []
    flaws += _weights_flaws(weights, item.sha256, quick=quick)
    if not config.is_file():
        return [*flaws, Flaw("missing", config, "its PEFT configuration is missing")]
    if item.config_sha256 is not None and not quick:
        if files.sha256_file(config) != item.config_sha256:
            flaws.append(Flaw("changed", config, "not the configuration that was written: another SHA-256"))
        return flaws
    try:
        settings = files.read_json(config)
    except CorruptFileError as error:
        return [*flaws, Flaw("unreadable", config, error.message)]
    has_size = weights.is_file() and weights.stat().st_size + config.stat().st_size == item.bytes
    if settings.get("peft_type") != "LORA" or (not flaws and not has_size):
        flaws.append(Flaw("changed", config, f"not {item.bytes} bytes with the weights, as the manifest says"))
    return flaws


@_unreadable_is_a_flaw
def generator_flaws(folder: Path, *, quick: bool = False) -> list[Flaw]:
    """Return what is wrong with a generator.

    Args:
        folder: the generator's folder.
        quick: whether to compare sizes instead of hashes.
    """
    flaws = _strangers(folder, {generators.CONFIG, generators.WEIGHTS, generators.CARD})
    path = folder / generators.CONFIG
    of_manifest = manifest_flaws(path, GeneratorManifest.known_keys())
    if of_manifest:
        return of_manifest + flaws
    try:
        manifest = GeneratorManifest.read(path)
    except CorruptFileError as error:
        return [Flaw("unreadable", path, error.message), *flaws]
    flaws += _weights_flaws(folder / generators.WEIGHTS, manifest.sha256, quick=quick)
    card, hashed = folder / generators.CARD, manifest.card_sha256
    if not card.is_file():
        flaws.append(Flaw("missing", card, "its card is missing"))
    elif hashed is not None and not quick and files.sha256_file(card) != hashed:
        flaws.append(Flaw("changed", card, "not the card that was written: another SHA-256"))
    return flaws


@_unreadable_is_a_flaw
def manifest_flaws(path: Path, known: frozenset[str]) -> list[Flaw]:
    """Return what is wrong with a manifest itself: it may be missing, no JSON, or not what its checksum says.

    Args:
        path: the manifest.
        known: the keys that a manifest without a checksum may hold.
    """
    if not path.is_file():
        return [Flaw("missing", path, f"{path.name} is missing")]
    try:
        checksums.read_checked(path, known)
    except checksums.ChecksumError as error:
        return [Flaw("changed", path, error.message)]
    except CorruptFileError as error:
        is_cut = not path.read_bytes().rstrip().endswith(b"}")
        return [Flaw("truncated" if is_cut else "unreadable", path, error.message)]
    return []


@_unreadable_is_a_flaw
def safetensors_flaws(path: Path, *, quick: bool = False) -> list[Flaw]:
    """Return what is wrong with a safetensors file: it may have another length than its header says, or have changed.

    Args:
        path: the file.
        quick: whether to leave the tensors unread, and the checksum uncompared.
    """
    try:
        check_safetensors(path)
    except CorruptFileError as error:
        return [Flaw("truncated", path, error.message)]
    if quick or checksums.is_intact(path):
        return []
    return [Flaw("changed", path, "not what was written: its checksum differs")]


def _weights_flaws(path: Path, sha256: str, *, quick: bool, what: str = "weights") -> list[Flaw]:
    if not path.is_file():
        return [Flaw("missing", path, f"its {what} are missing")]
    flaws = safetensors_flaws(path, quick=True)
    if flaws or quick or files.sha256_file(path) == sha256:
        return flaws
    return [Flaw("changed", path, f"not the {what} that were written: another SHA-256")]


def _strangers(folder: Path, listed: set[str]) -> list[Flaw]:
    """Return a flaw for each entry of a folder that is not listed; ``leftovers`` reports the temporary ones."""
    return [
        Flaw("unlisted", path, "no manifest lists it")
        for path in sorted(folder.iterdir())
        if path.name not in listed and not path.name.startswith(files.TEMPORARY)
    ]
