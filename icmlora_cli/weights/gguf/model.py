"""A whole model as one GGUF file that llama.cpp runs: settings, tokenizer, weights.

Source: the keys and names of the gguf package, and the conversion scripts of llama.cpp (``conversion/``) for what each
architecture's code there takes for granted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
import torch

from icmlora_cli.disk import files
from icmlora_cli.errors import UnsupportedAdapterError
from icmlora_cli.weights.gguf.lora import add_tensor, finish
from icmlora_cli.weights.gguf.target import GgufTarget, setting
from icmlora_cli.weights.gguf.tokenizer import add_tokenizer

Stored = Literal["fp32", "bf16", "fp16", "q8_0"]
KINDS: dict[Stored, gguf.GGMLQuantizationType] = {
    "fp32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "fp16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
FILE_TYPES: dict[Stored, gguf.LlamaFileType] = {
    "fp32": gguf.LlamaFileType.ALL_F32,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "fp16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
MODELS = ("llama", "qwen2", "qwen3", "gpt2")
GRANTED: Mapping[str, Mapping[str, object]] = {  # settings that llama.cpp's code has built in
    "gpt2": {
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    },
    "others": {"hidden_act": "silu", "use_sliding_window": False},
}
TURNED = ("c_attn", "c_proj", "c_fc")  # GPT-2 keeps these as [in, out]
EXACT = "position_embd."  # added to others' sums, and small


def check_model(config: Mapping[str, object], *, where: str | None = None) -> GgufTarget:
    """Return a model as llama.cpp sees it, if the whole of it can be written.

    Args:
        config: The content of the model's ``config.json``.
        where: that file, for messages.

    Raises:
        CorruptFileError: if the configuration lacks a size.
        UnsupportedAdapterError: if the architecture, or a setting of it, is not one that can be written.
    """
    target = GgufTarget.of(config, where=where)
    if target.architecture not in MODELS:
        raise UnsupportedAdapterError(
            f"whole models are written as GGUF for {', '.join(MODELS)}, and this one is {target.architecture}",
            where=where,
            hint="--format gguf without --merge writes its LoRA; llama.cpp's convert_hf_to_gguf.py converts the model",
        )
    granted = GRANTED["gpt2" if target.architecture == "gpt2" else "others"]
    wrong = [f"{key}: {config[key]}" for key, value in granted.items() if key in config and config[key] != value]
    kind, _ = _rope(config)
    if kind != "default":
        wrong.append(f"rope_type: {kind}")
    if wrong:
        raise UnsupportedAdapterError(
            f"this model's {', '.join(wrong)} cannot be written as GGUF here",
            where=where,
            hint="llama.cpp's convert_hf_to_gguf.py may convert it",
        )
    return target


def write_model(
    path: Path,
    parameters: Mapping[str, torch.Tensor],
    config: Mapping[str, object],
    tokenizer: Path,
    *,
    name: str,
    dtype: Stored = "fp32",
) -> None:
    """Write a model as a GGUF file, whole or not at all; one that is there is replaced.

    Args:
        path: the file.
        parameters: by transformers' names, each once (``model.named_parameters()``).
        config: The model's configuration with its defaults (``model.config.to_dict()``).
        tokenizer: folder with ``tokenizer.json``.
        name: ``general.name``.
        dtype: The dtype of matrices; vectors stay fp32. Rows that 8-bit blocks of 32 do not fit are fp16.

    Raises:
        CorruptFileError: if configuration or tokenizer are damaged.
        OutOfSpaceError: if the disk is full.
        UnsupportedAdapterError: if architecture, settings or tokenizer are not ones that can be written.
    """
    target = check_model(config)

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(temporary, target.architecture)
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[dtype])
        _add_settings(writer, config, target)
        add_tokenizer(writer, tokenizer, setting(config, ("vocab_size",), int, None))
        for key, weight in parameters.items():
            label = target.tensor(key)
            data, kind = _stored(_oriented(key, weight, target), label, dtype)
            add_tensor(writer, label, data, kind)
        finish(writer)

    files.write_with(path, write)


def _rope(config: Mapping[str, object]) -> tuple[str, float]:
    """Return how positions turn: the kind, and the base of the frequencies."""
    rope = files.as_object(config.get("rope_parameters") or config.get("rope_scaling"))
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    return kind, setting({**config, **rope}, ("rope_theta",), float, 10_000.0)


def _add_settings(writer: gguf.GGUFWriter, config: Mapping[str, object], target: GgufTarget) -> None:
    width = setting(config, ("hidden_size", "n_embd"), int, None)
    writer.add_vocab_size(setting(config, ("vocab_size",), int, None))
    writer.add_context_length(setting(config, ("max_position_embeddings", "n_positions"), int, None))
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(setting(config, ("intermediate_size", "n_inner"), int, 4 * width))
    writer.add_block_count(target.layers)
    writer.add_head_count(target.heads)
    writer.add_head_count_kv(target.kv_heads)
    if target.architecture == "gpt2":
        writer.add_layer_norm_eps(setting(config, ("layer_norm_epsilon",), float, 1e-5))
        return
    head = setting(config, ("head_dim",), int, width // target.heads)
    writer.add_layer_norm_rms_eps(setting(config, ("rms_norm_eps",), float, 1e-6))
    writer.add_rope_freq_base(_rope(config)[1])
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)


def _oriented(name: str, weight: torch.Tensor, target: GgufTarget) -> torch.Tensor:
    """Return a parameter as [out, in], with its rows in llama.cpp's order."""
    weight = weight.detach()
    if target.architecture == "gpt2" and weight.ndim == 2 and name.split(".")[-2] in TURNED:
        weight = weight.T
    return target.rows(name, weight)


def _stored(weight: torch.Tensor, label: str, dtype: Stored) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """Return a tensor's bytes as they are written, and what they are."""
    kind = KINDS["fp32"] if weight.ndim == 1 or label.startswith(EXACT) else KINDS[dtype]
    if kind == KINDS["q8_0"] and weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = KINDS["fp16"]
    return gguf.quants.quantize(weight.float().contiguous().cpu().numpy(), kind), kind
