"""What llama.cpp calls the weights of a base model, and in which order it keeps their rows.

Source: the gguf package's own name tables, and the conversion scripts of llama.cpp (``conversion/``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import gguf
import torch

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "GPT2LMHeadModel": "gpt2",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma3ForCausalLM": "gemma3",
    "Phi3ForCausalLM": "phi3",
}
INTERLEAVED = ("llama",)  # llama.cpp turns neighbouring rows of q and k together there, transformers a head's halves

Value = TypeVar("Value", int, float, str)


def setting(config: Mapping[str, object], names: tuple[str, ...], kind: type[Value], default: Value | None) -> Value:
    """Return the first of some settings of a ``config.json`` that is there.

    Args:
        config: the configuration.
        names: what architectures call it.
        kind: The type of the key's value.
        default: where there is none; None: it has to be there.

    Raises:
        CorruptFileError: if it is of another kind, or missing.
    """
    value = next((config[name] for name in names if config.get(name) is not None), default)
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CorruptFileError(f"the base's config.json has no {names[0]}", hint="give the base's whole folder")
    return value


@dataclass(frozen=True)
class GgufTarget:
    """A base model as llama.cpp sees it.

    Args:
        architecture: llama.cpp's name of it (``general.architecture``).
        layers: blocks in the stack.
        heads: attention heads.
        kv_heads: heads of keys and values.
        tied: the output layer is the embedding, and has no tensor of its own.
    """

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, object], *, where: str | None = None) -> "GgufTarget":
        """Return what a base's ``config.json`` says.

        Args:
            config: the configuration.
            where: The path of the configuration, for messages.

        Raises:
            UnsupportedAdapterError: if llama.cpp's names are not known for the architecture.
            CorruptFileError: if the configuration lacks a size.
        """
        named = config.get("architectures")
        name = str(named[0]) if isinstance(named, list) and named else str(config.get("model_type") or "nameless model")
        if name not in ARCHITECTURES:
            raise UnsupportedAdapterError(
                f"GGUF is written for {', '.join(ARCHITECTURES)}, and the base is a {name[:80]}",
                where=where,
                hint="--format peft; llama.cpp's convert_lora_to_gguf.py may know this architecture",
            )
        heads = setting(config, ("num_attention_heads", "n_head"), int, None)
        return cls(
            architecture=ARCHITECTURES[name],
            layers=setting(config, ("num_hidden_layers", "n_layer"), int, None),
            heads=heads,
            kv_heads=setting(config, ("num_key_value_heads",), int, heads),
            tied=bool(config.get("tie_word_embeddings", name in ("GPT2LMHeadModel", "Gemma3ForCausalLM"))),
        )

    @cached_property
    def _names(self) -> gguf.TensorNameMap:
        known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        return gguf.get_tensor_name_map(known[self.architecture], self.layers)

    def tensor(self, name: str) -> str:
        """Return what llama.cpp calls a parameter, such as ``blk.0.attn_q.weight``.

        Args:
            name: transformers' name, such as ``model.layers.0.self_attn.q_proj.weight``.

        Raises:
            UnsupportedAdapterError: if it has no such tensor.
        """
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None or (self.tied and found.startswith("output.")):
            why = "its output layer is its embedding" if found is not None else "none of its tensors is that"
            raise UnsupportedAdapterError(
                f"llama.cpp's {self.architecture} with {self.layers} layers has no {name.rpartition('.')[0]}: {why}",
                hint="--format peft keeps such an adapter; or check that it is for this base",
            )
        return str(found)

    def rows(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a parameter, or lora_B, with its rows in llama.cpp's order.

        transformers rotates row i of a head's first half with row i of its second half; llama.cpp, for some
        architectures, rows 2i and 2i + 1.

        Args:
            name: transformers' name of the parameter.
            weight: [out, anything] or [out].

        Raises:
            CorruptFileError: if there are not as many rows as heads need.
        """
        heads = {"q_proj": self.heads, "k_proj": self.kv_heads}.get(name.split(".")[-2])
        if heads is None or self.architecture not in INTERLEAVED:
            return weight
        rows = weight.shape[0]
        if rows % (2 * heads):
            raise CorruptFileError(f"{name} has {rows} rows, which {heads} heads cannot share: it is for another base")
        order = torch.arange(rows).view(heads, 2, rows // heads // 2)  # (head, half, row)
        return weight[order.transpose(1, 2).flatten()]
