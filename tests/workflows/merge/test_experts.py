"""Merging LoRAs of single experts: each is added to its own matrix, however the base's files keep it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig, PreTrainedModel, Qwen2MoeConfig, Qwen3MoeConfig

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UnsupportedAdapterError, WrongBaseError
from icmlora_cli.lm.adapter_base import adapter_base
from icmlora_cli.lm.load import quiet_transformers
from icmlora_cli.registry.base_files import describe
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.foreign.open import open_adapter
from icmlora_cli.weights.stored import shards
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.merge.merge import find_shares, run

SIZES = {
    "vocab_size": 256, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "num_experts_per_tok": 2,
}  # fmt: skip
CONFIGS = {
    "mixtral": MixtralConfig(num_local_experts=4, **SIZES),
    "qwen2_moe": Qwen2MoeConfig(num_experts=4, moe_intermediate_size=24, shared_expert_intermediate_size=32, **SIZES),
    "qwen3_moe": Qwen3MoeConfig(num_experts=4, moe_intermediate_size=24, head_dim=8, **SIZES),
}
# module of an expert's matrix to the half of the model's parameter that it is
GATE, UP, DOWN = ("gate_up_proj", 0, 2), ("gate_up_proj", 1, 2), ("down_proj", 0, 1)
PLACES = {
    "mixtral": {"w1": GATE, "w3": UP, "w2": DOWN},
    "qwen2_moe": {"gate_proj": GATE, "up_proj": UP, "down_proj": DOWN},
    "qwen3_moe": {"gate_proj": GATE, "up_proj": UP, "down_proj": DOWN},
}
BLOCK = {"mixtral": "block_sparse_moe", "qwen2_moe": "mlp", "qwen3_moe": "mlp"}
SCALING = 3.0  # alpha / r
RANK = 2


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(4)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_config(CONFIGS[kind])
    with torch.no_grad():
        for name, item in model.named_parameters():
            if ".experts." in name:  # torch.empty, as transformers makes them, can hold anything
                item.normal_(std=0.05)
    return model


def base_of(kind: str, tiny: Path, folder: Path, *, fused: bool) -> Path:
    """Save a model, with its experts' matrices as tensors of their own, or as the model has them."""
    model = model_of(kind)
    with quiet_transformers():
        model.save_pretrained(folder)
    assert any(".experts.0." in name for name in load_file(folder / "model.safetensors"))
    if fused:
        whole = {name: item.contiguous() for name, item in model.state_dict().items()}
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    for path in tiny.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def factors_of(kind: str, experts: tuple[int, ...]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return random B and A of every matrix of some experts of the second layer, and of a projection of attention."""
    rng = torch.Generator().manual_seed(9)
    found = {}
    for expert in experts:
        for name, (parameter, _, _) in PLACES[kind].items():
            out, into = (16, 24) if parameter == "down_proj" else (24, 16)
            pair = torch.randn(out, RANK, generator=rng), torch.randn(RANK, into, generator=rng)
            found[f"model.layers.1.{BLOCK[kind]}.experts.{expert}.{name}"] = pair
    found["model.layers.0.self_attn.o_proj"] = (
        torch.randn(16, RANK, generator=rng),
        torch.randn(RANK, 16, generator=rng),
    )
    return found


def lora(
    folder: Path, factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], *, dora: torch.Tensor | None = None
) -> Path:
    """Write an adapter as PEFT wrote it beside transformers 4, where every expert was a module."""
    targets = sorted({name.rpartition(".")[2] for name in factors})
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=SCALING * RANK, target_modules=targets)
    config.use_dora = dora is not None
    config.save_pretrained(str(folder))
    tensors = {}
    for name, (b, a) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous()
        if dora is not None:
            tensors[f"base_model.model.{name}.lora_magnitude_vector"] = dora[: len(b)].clone()
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def wanted(
    kind: str, factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], weight: float
) -> dict[str, torch.Tensor]:
    """Return the parameters of the merged model as they are by hand: W_e + s B A in each expert's own rows."""
    found = {name: item.clone() for name, item in model_of(kind).state_dict().items()}
    for name, (b, a) in factors.items():
        delta = weight * SCALING * (b @ a)
        if ".experts." not in name:
            found[f"{name}.weight"] += delta
            continue
        *_, expert, projection = name.split(".")
        parameter, place, of = PLACES[kind][projection]
        matrix = found[f"model.layers.1.mlp.experts.{parameter}"][int(expert)]
        matrix.chunk(of)[place].add_(delta)
    return found


def merged(home: Home, base: Path, adapters: Mapping[Path, float], out: Path) -> PreTrainedModel:
    """Merge, and return the merged model as transformers loads it."""
    run(
        find_shares([(str(path), weight) for path, weight in adapters.items()], home),
        out,
        pull(str(base), home, offline=True),
        any_base_name=True,
    )
    assert load_file(out / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)


@pytest.mark.parametrize("weight", [1.0, -0.5])
@pytest.mark.parametrize("fused", [False, True], ids=["a tensor an expert", "one tensor"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_each_expert_gets_its_own_delta(
    llama_base: Base, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fused: bool, weight: float
) -> None:
    monkeypatch.setattr(shards, "BLOCK", 1600)  # numbers: two experts' gate and up projections, four of the others
    base = base_of(kind, llama_base.path, tmp_path / "base", fused=fused)
    factors = factors_of(kind, (0, 3))
    model = merged(home, base, {lora(tmp_path / "lora", factors): weight}, tmp_path / "out")
    expected = wanted(kind, factors, weight)
    untouched = model_of(kind).state_dict()
    for name, item in model.state_dict().items():
        assert torch.allclose(item, expected[name], atol=1e-5), name
        if torch.equal(expected[name], untouched[name]):
            assert torch.equal(item, untouched[name]), name
    fused_name = "model.layers.1.mlp.experts.gate_up_proj"
    assert torch.equal(model.state_dict()[fused_name][1:3], untouched[fused_name][1:3])
    assert not torch.allclose(expected[fused_name][3], untouched[fused_name][3], atol=0.1)


@pytest.mark.parametrize("fused", [False, True], ids=["a tensor an expert", "one tensor"])
def test_two_adapters_on_one_expert(llama_base: Base, home: Home, tmp_path: Path, fused: bool) -> None:
    base = base_of("qwen3_moe", llama_base.path, tmp_path / "base", fused=fused)
    one, two = factors_of("qwen3_moe", (1,)), factors_of("qwen3_moe", (1, 2))
    adapters = {lora(tmp_path / "one", one): 0.5, lora(tmp_path / "two", two): 2.0}
    state = merged(home, base, adapters, tmp_path / "out").state_dict()
    first, second, plain = (
        wanted("qwen3_moe", one, 0.5),
        wanted("qwen3_moe", two, 2.0),
        model_of("qwen3_moe").state_dict(),
    )
    for name, item in state.items():
        assert torch.allclose(item, first[name] + second[name] - plain[name], atol=1e-5), name


@pytest.mark.parametrize("fused", [False, True], ids=["a tensor an expert", "one tensor"])
def test_dora_of_an_expert(llama_base: Base, home: Home, tmp_path: Path, fused: bool) -> None:
    base = base_of("qwen2_moe", llama_base.path, tmp_path / "base", fused=fused)
    factors = {name: pair for name, pair in factors_of("qwen2_moe", (2,)).items() if name.endswith(".up_proj")}
    magnitude = torch.linspace(0.5, 2.0, 24)
    state = merged(home, base, {lora(tmp_path / "lora", factors, dora=magnitude): 1.0}, tmp_path / "out").state_dict()
    matrix = wanted("qwen2_moe", factors, 1.0)["model.layers.1.mlp.experts.gate_up_proj"][2][24:]
    expected = magnitude[:, None] * matrix / matrix.norm(dim=1, keepdim=True)
    assert torch.allclose(state["model.layers.1.mlp.experts.gate_up_proj"][2][24:], expected, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["a tensor an expert", "one tensor"])
def test_what_no_expert_of_the_base_is(llama_base: Base, home: Home, tmp_path: Path, fused: bool) -> None:
    base = base_of("mixtral", llama_base.path, tmp_path / "base", fused=fused)
    ninth = {name.replace("experts.0", "experts.9"): pair for name, pair in factors_of("mixtral", (0,)).items()}
    with pytest.raises(WrongBaseError, match=r"has no module .*experts\.9"):
        merged(home, base, {lora(tmp_path / "ninth", ninth): 1.0}, tmp_path / "out")
    wide = {name: (b, torch.cat([a, a], 1)) for name, (b, a) in factors_of("mixtral", (0,)).items() if ".w1" in name}
    with pytest.raises(WrongBaseError, match="24 x 32, and the base's is 24 x 16"):
        merged(home, base, {lora(tmp_path / "wide", wide): 1.0}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_loaded_base_has_no_single_experts(llama_base: Base, tmp_path: Path) -> None:
    base = base_of("mixtral", llama_base.path, tmp_path / "base", fused=False)
    described = adapter_base(describe(base, name=str(base), model_id=str(base), origin="folder"))
    folder = lora(tmp_path / "lora", factors_of("mixtral", (0,)))
    with pytest.raises(UnsupportedAdapterError, match="is on a single expert") as caught:
        open_adapter(folder, described, any_base_name=True)
    assert "icmlora merge" in str(caught.value.hint)
