"""A LoRA as a GGUF file that llama.cpp loads beside its base model (``--lora FILE``).

Source of the format: llama.cpp's loader (``src/llama-adapter.cpp``). Each module has ``NAME.weight.lora_a``, our
``lora_A`` [r, in], and ``NAME.weight.lora_b``, our ``lora_B`` [out, r]; GGUF lists sizes from the last to the first. It
computes ``alpha / r * lora_b @ lora_a``, with one alpha for all modules and each module's own r.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import gguf
import numpy as np
import torch

from icmlora_cli.disk import files
from icmlora_cli.errors import UsageError
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.gguf.target import GgufTarget

Numbers = Literal["fp32", "fp16"]
NUMPY: dict[Numbers, type[np.floating]] = {"fp32": np.float32, "fp16": np.float16}


def write_lora(
    path: Path, adapter: Adapter, target: GgufTarget, *, name: str, description: str = "", dtype: Numbers = "fp32"
) -> None:
    """Write an adapter as a GGUF file, whole or not at all; one that is there is replaced.

    Args:
        path: the file.
        adapter: the adapter.
        target: The base model as llama.cpp sees it.
        name: ``general.name``.
        description: ``general.description``; none where it is empty.
        dtype: The dtype of the tensors. With fp32 their product is the adapter's delta-W to fp32's precision.

    Raises:
        CorruptFileError: if a module is not of the base's shape.
        OutOfSpaceError: if the disk is full.
        UnsupportedAdapterError: if llama.cpp has no tensor for a module.
        UsageError: if a number is too large for fp16.
    """
    alpha = common_alpha(adapter)
    tensors = dict(_tensors(adapter, target, alpha, dtype))  # all of them, before anything is written

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(temporary, target.architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        writer.add_name(name)
        if description:
            writer.add_description(description)
        for key, tensor in tensors.items():
            add_tensor(writer, key, tensor)
        finish(writer)

    files.write_with(path, write)


class _WrittenArray(np.ndarray):
    """An array whose ``tofile``, which the writer calls, tells that the disk is full; numpy's own may keep silent."""

    def tofile(self, fid: IO[bytes], sep: str = "", format: str = "%s") -> None:  # type: ignore[override]
        """Write the bytes to an open file."""
        fid.write(np.ascontiguousarray(self).data)


def add_tensor(
    writer: gguf.GGUFWriter, name: str, data: np.ndarray, kind: gguf.GGMLQuantizationType | None = None
) -> None:
    """Add a tensor to a file that is being made.

    Args:
        writer: The writer of the GGUF file.
        name: llama.cpp's.
        data: The numbers of the tensor, or its bytes.
        kind: what the bytes are; None where they are numbers.
    """
    writer.add_tensor(name, data.view(_WrittenArray), raw_dtype=kind)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write all that a writer was given, and close its file."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def common_alpha(adapter: Adapter) -> float:
    """Return the alpha that is right, with scaling alpha / r, for the most modules.

    llama.cpp holds it as float32, and takes 0 as "do not scale"; then it is 1.
    """
    alphas = Counter(float(np.float32(_alpha(adapter, module))) for module in adapter.factors)
    usable = [(count, alpha) for alpha, count in alphas.items() if alpha != 0 and np.isfinite(alpha)]
    return max(usable, default=(0, 1.0))[1]


def _alpha(adapter: Adapter, module: str) -> float:
    """Return the alpha of a module that gives its scaling as alpha / r, also where it is made otherwise (rsLoRA)."""
    return adapter.scaling(module) * adapter.factors[module].rank


def _tensors(adapter: Adapter, target: GgufTarget, alpha: float, dtype: Numbers) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and tensors; what of a module's scaling is not alpha / r goes into its lora_B."""
    for module, item in adapter.factors.items():
        parameter = f"{module}.weight"
        lora_b = target.rows(parameter, item.lora_b.float())
        factor = _alpha(adapter, module) / alpha
        if np.float32(factor) != 1:
            lora_b = lora_b * factor
        for side, tensor in (("lora_a", item.lora_a.float()), ("lora_b", lora_b)):
            yield f"{target.tensor(parameter)}.{side}", _numbers(tensor, dtype, module)


def _numbers(tensor: torch.Tensor, dtype: Numbers, module: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = tensor.contiguous().cpu().numpy().astype(NUMPY[dtype])
    if not np.isfinite(found).all():
        raise UsageError(f"the factors of {module} are too large for {dtype}", hint="--dtype fp32")
    return found
