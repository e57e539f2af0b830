"""From a foreign folder to numbers: one weights file, checked before it is loaded, and again once it is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from icmlora_cli.disk import files
from icmlora_cli.disk.files import is_object
from icmlora_cli.errors import CorruptFileError, NotFoundError, UnsupportedAdapterError
from icmlora_cli.weights.foreign.adalora import check_kind, folded, pruned
from icmlora_cli.weights.foreign.check import BaseShapes, check_shapes, shapes_of_factors
from icmlora_cli.weights.foreign.config import CONFIG, LoraSettings
from icmlora_cli.weights.foreign.headers import AGAIN, PICKLE_ADVICE, SAVE_AGAIN, TensorEntry, read_header, sniff
from icmlora_cli.weights.foreign.keys import KeyParts, sorted_out
from icmlora_cli.weights.foreign.renamed import in_the_base
from icmlora_cli.weights.stored.shards import FLOATS

WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
DTYPES = {dtype: name for name, dtype in FLOATS.items()}


@dataclass(frozen=True)
class ForeignAdapter:
    """A foreign adapter in memory.

    Args:
        settings: The adapter's configuration.
        parts: what its tensors are.
        tensors: by their names in the file.
        file: they came from.
        sha256: The SHA-256 of the weights file.
        notes: what of it is not taken, though nothing is lost, in sentences.
    """

    settings: LoraSettings
    parts: KeyParts
    tensors: Mapping[str, torch.Tensor]
    file: Path
    sha256: str
    notes: tuple[str, ...] = ()


def weights_file(folder: Path, *, allow_pickle: bool = False) -> Path:
    """Return the file with an adapter's weights.

    Raises:
        NotFoundError: if there is none.
        UnsupportedAdapterError: if there is only a pickle and it is not allowed, or only other formats.
    """
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    if (folder / PICKLE).is_file():
        if allow_pickle:
            return folder / PICKLE
        raise UnsupportedAdapterError(
            f"the weights are in {PICKLE}, a Python pickle, which can run code when it is read",
            where=str(folder / PICKLE),
            hint=PICKLE_ADVICE,
        )
    check_other_formats(folder)
    raise NotFoundError(
        f"there is no {WEIGHTS}", where=str(folder), hint="give the folder that PEFT's save_pretrained wrote"
    )


def check_other_formats(folder: Path) -> None:
    """Say which other format a folder's weights are in, if it is one that is known.

    Raises:
        UnsupportedAdapterError: naming the format and the tool that converts it.
        CorruptFileError: if a weights file is damaged.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in {".gguf", ".safetensors"}:
            header = {} if path.suffix == ".gguf" else read_header(path)
            sniff(path)
            if header:
                sorted_out(header, str(path))


def read_foreign(
    folder: Path, settings: LoraSettings, base: BaseShapes | None, *, allow_pickle: bool = False
) -> ForeignAdapter:
    """Read a foreign LoRA's weights.

    Args:
        folder: a PEFT folder.
        settings: The adapter's configuration, from ``read_settings``.
        base: the modules of the base that it is for; None compares it with none.
        allow_pickle: read ``adapter_model.bin`` too, with ``weights_only=True``.

    Raises:
        CorruptFileError: if the file is damaged, not all finite, or half of something is missing.
        NotFoundError: if there are no weights.
        UnsupportedAdapterError: if they are a pickle, or of another format or kind.
        WrongBaseError: if they are for another base.
    """
    path = weights_file(folder, allow_pickle=allow_pickle)
    if path.name == PICKLE:
        tensors = _unpickled(path)
        entries = {name: TensorEntry(DTYPES[item.dtype], tuple(item.shape)) for name, item in tensors.items()}
    else:
        tensors, entries = {}, read_header(path)
    parts = sorted_out(entries, str(path))
    check_kind(parts, settings, folder)
    if settings.init_rank is not None:
        parts, settings = pruned(parts, entries, settings, str(path))
    if base is None:
        base = shapes_of_factors(parts, entries, settings)
    else:
        parts, former = in_the_base(parts, {**base.modules, **base.parameters, **base.experts})
        settings = replace(settings, former=former)
    check_shapes(parts, entries, settings, base, str(path))
    notes = settings.notes + _check_whole(parts, settings, folder, base)
    if not tensors:
        try:
            tensors = load_file(path)
        except (SafetensorError, ValueError) as error:
            raise CorruptFileError(f"{path.name} cannot be read: {error}", where=str(path), hint=AGAIN) from error
    for name, item in tensors.items():
        if not torch.isfinite(item).all():
            raise CorruptFileError(
                f"{name} holds NaN or infinity",
                where=str(path),
                hint="its training diverged, or fp16 overflowed: take an earlier checkpoint, or save it in fp32",
            )
    if settings.init_rank is not None:
        tensors = folded(parts, tensors)
    return ForeignAdapter(settings, parts, tensors, path, files.sha256_file(path), notes)


def _unpickled(path: Path) -> dict[str, torch.Tensor]:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a hostile pickle can make the reader fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CorruptFileError(
            f"{path.name} holds more than tensors, or is damaged: {reason[:200]}",
            where=str(path),
            hint="nothing of it was run; do not load it with another program unless you trust its maker",
        ) from error
    if not is_object(value) or not all(
        isinstance(name, str) and isinstance(item, torch.Tensor) for name, item in value.items()
    ):
        raise CorruptFileError(f"{path.name} is not a dictionary of tensors", where=str(path), hint=SAVE_AGAIN)
    for name, item in value.items():
        # a tensor with strides of its own can claim any size without a byte behind it
        if item.dtype not in DTYPES or item.layout != torch.strided or not item.is_contiguous():
            raise UnsupportedAdapterError(
                f"{name[:200]} is of dtype {item.dtype} or not stored whole; an adapter's are plain matrices of floats",
                where=str(path),
                hint=SAVE_AGAIN,
            )
    return {name: item.detach().clone() for name, item in value.items()}  # some share their storage


def _check_whole(parts: KeyParts, settings: LoraSettings, folder: Path, base: BaseShapes) -> tuple[str, ...]:
    """Check that the weights hold all that the configuration says is there; return notes on what means nothing."""
    ignored = []
    for ending in settings.modules_to_save:
        if any(ending in parameter for parameter in parts.whole):
            continue
        if any(name.rpartition(".")[0].endswith(ending) for name in base.parameters):
            raise CorruptFileError(
                f"modules_to_save names {ending[:100]}, and the weights do not hold it",
                where=str(folder / CONFIG),
                hint="the adapter was not saved whole: save it again with PEFT's save_pretrained",
            )
        ignored.append(ending[:40])
    _check_magnitudes(parts, settings, folder)
    return (f"modules_to_save names {', '.join(ignored[:5])}, which the base does not have",) if ignored else ()


def _check_magnitudes(parts: KeyParts, settings: LoraSettings, folder: Path) -> None:
    if settings.use_dora:
        lacking = next((module for module in parts.of("A") if module not in parts.of("magnitude")), None)
        if lacking is not None:
            raise CorruptFileError(
                f"use_dora is set, and {lacking} has no lora_magnitude_vector",
                where=str(folder / CONFIG),
                hint=AGAIN,
            )
    elif parts.of("magnitude"):
        name = next(iter(parts.of("magnitude").values()))
        raise CorruptFileError(
            f"{name} is there, and {CONFIG} does not say use_dora", where=str(folder / CONFIG), hint=AGAIN
        )
