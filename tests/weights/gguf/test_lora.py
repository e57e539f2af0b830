"""A LoRA in GGUF: read back, its names, sizes and numbers are what llama.cpp makes our delta-W of."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError, UsageError
from icmlora_cli.weights.adapter import Adapter, Factors, read_adapter, write_adapter
from icmlora_cli.weights.foreign.plain import check_plain
from icmlora_cli.weights.gguf.lora import common_alpha, write_lora
from icmlora_cli.weights.gguf.target import GgufTarget
from tests.gguf_read import arrays, deltas, said
from tests.random_lora import config_of, fitting_base, random_lora

LLAMA = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "num_attention_heads": 4}


def write(path: Path, adapter: Adapter, base: Path, **options: object) -> gguf.GGUFReader:
    write_lora(path, adapter, GgufTarget.of(config_of(base)), name="a name", **options)  # type: ignore[arg-type]
    return gguf.GGUFReader(path)


def check_deltas(reader: gguf.GGUFReader, adapter: Adapter, architecture: str, tolerance: float = 1e-5) -> None:
    found = deltas(reader, architecture)
    assert found.keys() == adapter.factors.keys()
    for module, delta in found.items():
        wanted = adapter.scaling(module) * (
            adapter.factors[module].lora_b.double() @ adapter.factors[module].lora_a.double()
        )
        assert np.abs(delta - wanted.numpy()).max() <= tolerance * float(wanted.abs().max())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "gemma3"])
def test_every_architecture_reads_back_as_our_delta(
    architecture: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = random_lora(tiny_bases[architecture])
    reader = write(tmp_path / "a.gguf", adapter, tiny_bases[architecture], description="two\nlines")
    assert said(reader) == {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
        "general.name": "a name",
        "general.description": "two\nlines",
    }
    assert {item.tensor_type for item in reader.tensors} == {gguf.GGMLQuantizationType.F32}
    check_deltas(reader, adapter, architecture)
    name = "blk.1.attn_qkv" if architecture == "gpt2" else "blk.1.ffn_gate"
    sizes = {item.name: item.shape.tolist() for item in reader.tensors}  # as GGUF has them: the last comes first
    assert sizes[f"{name}.weight.lora_a"] == [32, 3]
    assert sizes[f"{name}.weight.lora_b"] == [3, 96 if architecture == "gpt2" else 64]
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_the_same_adapter_gives_the_same_bytes(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write(tmp_path / name, random_lora(tiny_bases["llama"]), tiny_bases["llama"])
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_a_scaling_that_all_modules_share_is_said_by_alpha(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    plain = random_lora(tiny_bases["qwen3"], ranks=(4,))
    rslora = replace(plain, use_rslora=True)
    reader = write(tmp_path / "a.gguf", rslora, tiny_bases["qwen3"])
    assert said(reader)["adapter.lora.alpha"] == 12.0  # 6 / sqrt(4) is 12 / 4
    check_deltas(reader, rslora, "qwen3")
    lora_b = plain.factors["model.layers.0.self_attn.q_proj"].lora_b
    assert np.array_equal(arrays(reader)["blk.0.attn_q.weight.lora_b"], lora_b.numpy())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_modules_with_a_scaling_of_their_own_are_exact(
    architecture: str, use_rslora: bool, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    mixed = random_lora(tiny_bases[architecture], ranks=(3, 3, 5, 1))
    first, second, *_ = mixed.factors
    adapter = replace(mixed, use_rslora=use_rslora, alphas={first: 1.75, second: -40.0})
    folder = tmp_path / "peft"
    write_adapter(folder, adapter, fitting_base(adapter))
    read = read_adapter(folder)  # rank_pattern and alpha_pattern
    assert len({round(read.scaling(module), 6) for module in read.factors}) > 3
    check_deltas(write(tmp_path / "a.gguf", read, tiny_bases[architecture]), adapter, architecture)


def test_alpha_is_never_what_llama_cpp_takes_for_none(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    for alpha in (0.0, 1e-60):
        nothing = replace(random_lora(tiny_bases["llama"]), alpha=alpha)
        assert common_alpha(nothing) == 1.0
        reader = write(tmp_path / "a.gguf", nothing, tiny_bases["llama"])
        assert said(reader)["adapter.lora.alpha"] == 1.0
        assert all(not delta.any() for delta in deltas(reader, "llama").values())


def test_half_precision_and_numbers_too_large_for_it(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    adapter, path = random_lora(tiny_bases["llama"]), tmp_path / "a.gguf"
    reader = write(path, adapter, tiny_bases["llama"], dtype="fp16")
    assert {item.tensor_type for item in reader.tensors} == {gguf.GGMLQuantizationType.F16}
    check_deltas(reader, adapter, "llama", tolerance=2e-3)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="too large for fp16"):
        write(path, random_lora(tiny_bases["llama"], size=1e5), tiny_bases["llama"], dtype="fp16")
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.parametrize(
    ("architecture", "wanted", "names"),
    [
        ("MistralForCausalLM", "llama", {"self_attn.k_proj": "attn_k", "mlp.down_proj": "ffn_down"}),
        ("Qwen2ForCausalLM", "qwen2", {"self_attn.k_proj": "attn_k", "mlp.gate_proj": "ffn_gate"}),
        ("Phi3ForCausalLM", "phi3", {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}),
    ],
)
def test_architectures_beyond_the_tiny_ones(architecture: str, wanted: str, names: dict[str, str]) -> None:
    target = GgufTarget.of(LLAMA | {"architectures": [architecture], "num_key_value_heads": 2})
    assert target.architecture == wanted
    for ours, theirs in names.items():
        assert target.tensor(f"model.layers.1.{ours}.weight") == f"blk.1.{theirs}.weight"
    rows = torch.arange(16.0)[:, None]
    moved = target.rows("model.layers.1.self_attn.k_proj.weight", rows)
    halves_together = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert moved.flatten().tolist() == (halves_together if wanted == "llama" else list(range(16)))


def test_an_architecture_that_is_not_known_names_those_that_are() -> None:
    with pytest.raises(UnsupportedAdapterError) as caught:
        GgufTarget.of({"architectures": ["BloomForCausalLM"], "n_layer": 2, "n_head": 4}, where="config.json")
    assert "LlamaForCausalLM, MistralForCausalLM, GPT2LMHeadModel" in caught.value.message
    assert "BloomForCausalLM" in caught.value.message and caught.value.where == "config.json"
    with pytest.raises(CorruptFileError, match="num_attention_heads"):
        GgufTarget.of({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2})


def test_modules_that_the_base_lacks_are_refused(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    pair = Factors(torch.ones(1, 32), torch.ones(384, 1))
    for module, why in (("lm_head", "its output layer is its embedding"), ("model.layers.2.mlp.up_proj", "2 layers")):
        with pytest.raises(UnsupportedAdapterError, match=why):
            write(tmp_path / "a.gguf", Adapter("b", 1.0, {module: pair}), tiny_bases["llama"])
    odd = Adapter("b", 1.0, {"model.layers.0.self_attn.q_proj": Factors(torch.ones(1, 32), torch.ones(30, 1))})
    with pytest.raises(CorruptFileError, match="another base"):
        write(tmp_path / "a.gguf", odd, tiny_bases["llama"])
    assert not list(tmp_path.iterdir())
    assert GgufTarget.of(LLAMA).tensor("lm_head.weight") == "output.weight"


@pytest.mark.filterwarnings("ignore")  # PEFT has its own remarks on such adapters
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"use_dora": True}, r"magnitudes \(DoRA\)"),
        ({"lora_bias": True}, "a bias beside lora_B"),
        ({"bias": "lora_only"}, "whole parameters"),
        ({"modules_to_save": ["lm_head"]}, "whole parameters"),
        ({"target_modules": ["c_attn", "wte"]}, "a LoRA of an embedding"),
    ],
)
def test_what_peft_saves_beyond_pairs_is_refused(
    options: dict[str, object], why: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_bases["gpt2"])
    common = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True}
    get_peft_model(model, LoraConfig(**common | options)).save_pretrained(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedAdapterError, match=f"GGUF holds lora_A and lora_B alone.*{why}") as caught:
        check_plain(tmp_path, what="a LoRA in GGUF")
    assert caught.value.hint is not None and "--approximate" in caught.value.hint
