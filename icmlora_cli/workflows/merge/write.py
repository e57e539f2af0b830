"""Writing a model that is its base with some parameters changed, file by file, into a folder that is being made."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.provenance import local_paths
from icmlora_cli.registry.base_files import beside_weights
from icmlora_cli.weights.adapter_form import Dtype
from icmlora_cli.weights.stored.checkpoint import ModelCheckpoint, changed_config, plan, write_files
from icmlora_cli.weights.stored.shards import Change
from icmlora_cli.workflows.progress import OnProgress, Progress

CONFIG = "config.json"


@dataclass(frozen=True)
class WrittenModel:
    """A model that was written.

    Args:
        files: how many weight files it has.
        tensors: how many tensors.
        changed: how many of them are not the base's.
        dtype: The dtype of its floats, such as ``bf16``; ``bf16+fp32`` where they differ.
        untied: input and output embedding are one in the base, and two in it.
        sha256: The SHA-256 of each weight file, by the file's name.
    """

    files: int
    tensors: int
    changed: int
    dtype: str
    untied: bool
    sha256: Mapping[str, str]

    def about(self) -> dict[str, object]:
        """Return the JSON form, without the files' hashes."""
        return {name: value for name, value in vars(self).items() if name != "sha256"}


def write_model(
    folder: Path,
    checkpoint: ModelCheckpoint,
    changes: Mapping[str, Change],
    *,
    dtype: Dtype | None,
    on_progress: OnProgress,
    beside: Sequence[Path] | None = None,
) -> WrittenModel:
    """Write the weights, the configuration and what else goes along, and bring all of it to the disk.

    Args:
        folder: an empty one.
        checkpoint: the base's.
        changes: The changes of the base's parameters, by name.
        dtype: The dtype of all floats; None keeps each one's own.
        on_progress: told of each file's tensors.
        beside: files that go along: configuration, tokenizer, licence; None takes the base's.

    Raises:
        CorruptFileError: if the base's files are damaged, or a changed number is not finite.
        OutOfSpaceError: if the disk is full.
        UnsupportedAdapterError: if a tensor cannot be changed.
    """
    planned = plan(checkpoint, changes, dtype)
    count = len(planned.files)

    def report(name: str, done: int, total: int) -> None:
        at = list(planned.files).index(name)
        on_progress(Progress("merge", name, done, total, items_done=at, items_total=count if count > 1 else 0))

    for path in beside_weights(checkpoint.folder) if beside is None else beside:
        _copy(path, folder / path.name)
    if planned.untied or dtype is not None:
        config = files.read_json(folder / CONFIG)
        files.write_json(folder / CONFIG, changed_config(config, planned, dtype))
    with files.disk_errors(folder):
        digests = write_files(folder, checkpoint, planned, report)
        files.sync_tree(folder)
    return WrittenModel(count, len(planned.tensors), planned.changed, planned.dtype, planned.untied, digests)


def _copy(path: Path, target: Path) -> None:
    """Copy a file, without the paths that transformers writes into configurations of models loaded from a folder."""
    if path.name.endswith("config.json"):
        value = files.read_json(path)
        clean = local_paths.without_paths(value)
        if clean != value:
            files.write_json(target, files.as_object(clean))
            return
    shutil.copyfile(path, target)
