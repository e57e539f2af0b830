"""What a LoRA in GGUF says, read back as llama.cpp's loader reads it."""

import gguf
import numpy as np

OURS = {
    "attn_qkv": "transformer.h.{}.attn.c_attn",
    "attn_q": "model.layers.{}.self_attn.q_proj",
    "attn_k": "model.layers.{}.self_attn.k_proj",
    "attn_v": "model.layers.{}.self_attn.v_proj",
    "ffn_gate": "model.layers.{}.mlp.gate_proj",
}
OURS_BY_FAMILY = {
    "gpt2": {
        "attn_output": "transformer.h.{}.attn.c_proj",
        "ffn_up": "transformer.h.{}.mlp.c_fc",
        "ffn_down": "transformer.h.{}.mlp.c_proj",
    },
    "others": {
        "attn_output": "model.layers.{}.self_attn.o_proj",
        "ffn_up": "model.layers.{}.mlp.up_proj",
        "ffn_down": "model.layers.{}.mlp.down_proj",
    },
}
HEADS = {"attn_q": 4, "attn_k": 2}  # of the tiny models


def said(reader: gguf.GGUFReader) -> dict[str, object]:
    """Return a file's metadata."""
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


def arrays(reader: gguf.GGUFReader) -> dict[str, np.ndarray]:
    """Return a file's tensors."""
    return {item.name: np.array(item.data) for item in reader.tensors}


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return rows as transformers has them: of a head, first the even ones of llama.cpp, then the odd ones."""
    own = rows.reshape(heads, -1, rows.shape[-1])
    return np.concatenate([np.concatenate([head[0::2], head[1::2]]) for head in own])


def deltas(reader: gguf.GGUFReader, architecture: str) -> dict[str, np.ndarray]:
    """Return what llama.cpp adds to each of our modules' weights, fp64 [out, in], for the tests' tiny models."""
    family = "gpt2" if architecture == "gpt2" else "others"
    ours, found = OURS | OURS_BY_FAMILY[family], arrays(reader)
    alpha, made = said(reader)["adapter.lora.alpha"], {}
    for tensor in sorted(name.removesuffix(".lora_a") for name in found if name.endswith(".lora_a")):
        a, b = (found.pop(f"{tensor}.lora_{side}").astype(np.float64) for side in "ab")
        _, layer, name, _ = tensor.split(".")
        delta = alpha / b.shape[-1] * (b @ a)
        turned = architecture == "llama" and name in HEADS
        made[ours[name].format(layer)] = halves(delta, HEADS[name]) if turned else delta
    assert not found
    return made
