"""Turn a GGUF file, once, into a plain float32 model folder that transformers and PEFT load directly."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.load import quiet_transformers

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def gguf_to_folder(gguf: Path, folder: Path) -> None:
    """Dequantize a GGUF causal language model and save it with its tokenizer.

    The weights stay float32: a Q4_1 weight is ``d * q + m`` with float16 ``d`` and ``m``, which bfloat16's
    8 bits of mantissa would round once more.

    Args:
        gguf: the quantized model.
        folder: an existing folder that gets config, safetensors, tokenizer and chat template.

    Raises:
        CorruptFileError: if the file does not hold a model that transformers can read.
    """
    with quiet_transformers(), _without_bar():
        try:
            model = _dequantized(gguf)
            tokenizer = _tokenizer(gguf)
        except (ValueError, LookupError, RuntimeError, OSError, struct.error) as error:
            raise CorruptFileError(f"{gguf.name} cannot be converted: {error}", where=str(gguf)) from error
        _check(model, gguf)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _without_bar() -> Iterator[None]:
    """Keep the GGUF reader's own bar away, which does not heed transformers' switch."""
    from transformers import modeling_gguf_pytorch_utils as reader

    original = getattr(reader, "tqdm", None)
    if original is None:
        yield
        return
    reader.tqdm = partial(original, disable=True)
    try:
        yield
    finally:
        reader.tqdm = original


def _dequantized(gguf: Path) -> PreTrainedModel:
    import transformers

    # GgufConfig came with packed GGUF weights; before it, transformers always dequantized.
    packed = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": packed(dequantize=True)} if packed is not None else {}
    return transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True, **options
    )


def _tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    field = GGUFReader(gguf).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        # GGUF names the pre-tokenizer only, and transformers then takes GPT-2's, which cuts the blanks before
        # a figure otherwise than SmolLM's own, that splits off every digit first.
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
        )
    return tokenizer


def _check(model: PreTrainedModel, gguf: Path) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32 or not torch.isfinite(parameter).all():
            raise CorruptFileError(
                f"{gguf.name} was not dequantized well: {name} is {parameter.dtype} or not finite",
                where=str(gguf),
            )
