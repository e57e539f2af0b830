"""The safetensors files of a base model as a whole, and a changed copy of them, written one after the other."""

import math
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.manifests.foreign import SafetensorsIndex
from icmlora_cli.registry.base_files import INDEX
from icmlora_cli.weights.adapter_form import DTYPES, Dtype
from icmlora_cli.weights.foreign.check import BaseShapes
from icmlora_cli.weights.stored.changes import same
from icmlora_cli.weights.stored.shards import FLOATS, Change, Shard, StoredTensor, WrittenShard, write_shard

SINGLE = "model.safetensors"
NAMES: Mapping[Dtype, str] = {
    name: next(key for key, kind in FLOATS.items() if kind == DTYPES[name]) for name in DTYPES
}


def model_files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files that transformers loads from a model's folder: one, or the index's shards.

    Raises:
        CorruptFileError: if there is neither, or the index is broken.
    """
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    where = str(folder / INDEX)
    try:
        names = SafetensorsIndex.read(folder / INDEX).shards
    except FileNotFoundError as error:
        raise CorruptFileError(
            f"{folder.name} has neither {SINGLE} nor {INDEX}",
            where=str(folder),
            hint="load it with transformers and save it again with save_pretrained",
        ) from error
    if not names or any(Path(name).name != name for name in names):
        raise CorruptFileError(f"{INDEX} does not name files beside it", where=where)
    return tuple(folder / name for name in names)


@dataclass(frozen=True)
class ModelCheckpoint:
    """What a base's weight files hold.

    Args:
        folder: where they are.
        shards: the files, by their headers.
        stored: parameter of the model to the key of its tensor.
        shapes: the model's modules and parameters.
        tied: the parameters of input and output embedding where they are one; None where they are two.
    """

    folder: Path
    shards: tuple[Shard, ...]
    stored: Mapping[str, str]
    shapes: BaseShapes
    tied: tuple[str, str] | None

    @cached_property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """All tensors by their keys."""
        return {item.name: item for shard in self.shards for item in shard.tensors}

    def checked(self, key: str, parameter: str) -> StoredTensor:
        """Return the tensor of a parameter, if it can be changed.

        Raises:
            CorruptFileError: if it has another shape than the model's.
            UnsupportedAdapterError: if it is no plain float.
        """
        stored, wanted = self.tensors[key], self.shapes.parameters[parameter]
        if stored.dtype not in FLOATS:
            raise UnsupportedAdapterError(
                f"{key} of the base is of dtype {stored.dtype}, to which nothing can be added",
                where=str(self.folder),
                hint="give the base in bf16, fp16 or fp32 with --base",
            )
        if stored.shape != wanted:
            raise CorruptFileError(
                f"{key} is {list(stored.shape)}, and the model has {list(wanted)}", where=str(self.folder)
            )
        return stored


@dataclass(frozen=True)
class MergePlan:
    """What is to be written.

    Args:
        files: file name to its tensors.
        untied: input and output embedding are one in the base, and two here.
        changed: how many tensors are not the base's.
    """

    files: Mapping[str, tuple[WrittenShard, ...]]
    untied: bool
    changed: int

    @property
    def tensors(self) -> tuple[WrittenShard, ...]:
        """All of them."""
        return tuple(item for own in self.files.values() for item in own)

    @property
    def laid_out_as_the_base(self) -> bool:
        """Whether names, shapes and dtypes are those of the base."""
        return not self.untied and all(item.dtype == item.source.dtype for item in self.tensors)

    @property
    def dtype(self) -> str:
        """The dtypes of its floats, such as ``bf16``; ``bf16+fp32`` where they differ."""
        known = {name: short for short, name in NAMES.items()}
        used = {item.dtype for item in self.tensors}
        floats = {known.get(name, name.lower()) for name in used if name in FLOATS} or {name.lower() for name in used}
        return "+".join(sorted(floats))


def plan(checkpoint: ModelCheckpoint, changes: Mapping[str, Change], dtype: Dtype | None = None) -> MergePlan:
    """Check that changes can be made, and say what is written then.

    A tied embedding that is changed on one side alone becomes two tensors, so that the other side stays as it is.

    Args:
        checkpoint: the base's files.
        changes: The changes of the model's parameters, by name.
        dtype: The dtype of all floats; None keeps each one's own.

    Raises:
        CorruptFileError: if the files lack a parameter, or have it in another shape than the model.
        UnsupportedAdapterError: if a tensor is no plain float, or kept in another form than the model's.
    """
    sides = checkpoint.tied or ()
    touched = [changes.get(side) for side in sides]
    untied = any(item is not None for item in touched) and not same(touched[0], touched[1])
    by_key: dict[str, Change] = {}
    beside: dict[str, WrittenShard] = {}
    for parameter in dict.fromkeys([*changes, *(sides if untied else ())]):
        change, key = changes.get(parameter), checkpoint.stored.get(parameter)
        other = checkpoint.stored.get(sides[1 - sides.index(parameter)]) if parameter in sides else None
        if key is not None:
            if change is not None:
                checkpoint.checked(key, parameter)
                by_key[key] = change
        elif other is None:
            raise _not_kept(parameter, checkpoint)
        elif untied:
            source = checkpoint.checked(other, parameter)
            beside[other] = WrittenShard(parameter, source, source.dtype, change)
    found: dict[str, tuple[WrittenShard, ...]] = {}
    for shard in checkpoint.shards:
        own = [WrittenShard(item.name, item, item.dtype, by_key.get(item.name)) for item in shard.tensors]
        own += [beside[item.name] for item in shard.tensors if item.name in beside]
        found[shard.path.name] = tuple(_cast(item, dtype) for item in own)
    return MergePlan(found, untied, len(by_key) + len(beside))


def _cast(item: WrittenShard, dtype: Dtype | None) -> WrittenShard:
    if dtype is None or item.dtype not in FLOATS:
        return item
    return WrittenShard(item.name, item.source, NAMES[dtype], item.change)


def _not_kept(parameter: str, checkpoint: ModelCheckpoint) -> UnsupportedAdapterError:
    if "quantization_config" in files.read_json(checkpoint.folder / "config.json"):
        return UnsupportedAdapterError(
            f"the base is quantised, and nothing can be added to its {parameter}",
            where=str(checkpoint.folder),
            hint="give the same model in bf16 with --base; or use the adapter beside the base, unmerged",
        )
    return UnsupportedAdapterError(
        f"the base's files do not hold {parameter} as the model has it, so it cannot be changed there",
        where=str(checkpoint.folder),
        hint="load the base with transformers, save it with save_pretrained, and give that folder with --base",
    )


def write_files(
    folder: Path, checkpoint: ModelCheckpoint, planned: MergePlan, on_tensor: Callable[[str, int, int], None]
) -> dict[str, str]:
    """Write the weight files into a folder, and the index where the base has one.

    Args:
        folder: an existing one.
        checkpoint: the base's files.
        planned: what to write.
        on_tensor: called with a file's name, how many of its tensors are done, and of how many.

    Returns:
        The SHA-256 of each weight file, by its name.

    Raises:
        CorruptFileError: if a changed number is not finite.
    """
    total = 0
    with ThreadPoolExecutor(3) as pool:  # a file goes to the disk and is hashed while the next one is made
        syncing, hashing = [], {}
        for shard in checkpoint.shards:
            name, tensors = shard.path.name, planned.files[shard.path.name]
            done = [0]

            def count(name: str = name, done: list[int] = done, of: int = len(tensors)) -> None:
                done[0] += 1
                on_tensor(name, done[0], of)

            total += write_shard(folder / name, shard, tensors, count)
            syncing.append(pool.submit(files.sync_file, folder / name))
            hashing[name] = pool.submit(files.sha256_file, folder / name)
        for item in syncing:
            item.result()
        digests = {name: item.result() for name, item in hashing.items()}
    if checkpoint.shards[0].path.name != SINGLE:
        if planned.laid_out_as_the_base:
            shutil.copyfile(checkpoint.folder / INDEX, folder / INDEX)
        else:
            files.write_json(folder / INDEX, _index(checkpoint, planned, total))
    return digests


def _index(checkpoint: ModelCheckpoint, planned: MergePlan, total: int) -> dict[str, object]:
    index = files.read_json(checkpoint.folder / INDEX)
    told = dict(files.as_object(index.get("metadata")))
    if "total_size" in told:
        told["total_size"] = total
    if "total_parameters" in told and planned.untied:
        told["total_parameters"] = sum(math.prod(item.source.shape) for item in planned.tensors)
    mapped = {item.name: name for name, own in planned.files.items() for item in own}
    return index | {"metadata": told, "weight_map": dict(sorted(mapped.items()))}


def changed_config(config: dict[str, object], planned: MergePlan, dtype: Dtype | None) -> dict[str, object]:
    """Return a model's configuration as it is for what was written."""
    inner = files.as_object(config.get("text_config"))
    changed: dict[str, object] = {}
    if planned.untied:
        changed["tie_word_embeddings"] = False
    if dtype is not None:
        full = str(DTYPES[dtype]).removeprefix("torch.")
        changed |= {key: full for key in ("dtype", "torch_dtype") if key in config} or {"dtype": full}
    if inner and changed:
        changed["text_config"] = inner | {key: value for key, value in changed.items() if key in inner}
    return config | changed
