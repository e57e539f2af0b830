"""What a LoRA cannot hold is refused, or fitted and dropped with its relative error told."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icmlora_cli.errors import UnsupportedAdapterError
from icmlora_cli.weights.adapter import read_adapter, write_adapter
from tests.peft_made import saved_by_peft

if TYPE_CHECKING:
    from tests.weights.foreign.conftest import Tiny


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_dora_is_fitted_and_at_full_rank_exact(tinies: "Mapping[str, Tiny]", architecture: str, tmp_path: Path) -> None:
    tiny, conv = tinies[architecture], architecture == "gpt2"
    targets = ["c_attn"] if conv else ["q_proj", "down_proj"]
    folder = saved_by_peft(tiny.model, tmp_path / "dora", use_dora=True, target_modules=targets, fan_in_fan_out=conv)
    with pytest.raises(UnsupportedAdapterError, match=r"DoRA of .* and ") as caught:
        tiny.take(folder)
    assert "--approximate" in str(caught.value.hint)
    wanted = tiny.logits(folder)
    errors = []
    for rank in (None, 16, 64):
        adapter, parts = tiny.take(folder, approximate=True, rank=rank)
        write_adapter(tmp_path / "fit", adapter, tiny.shapes)
        errors.append(max(part.error for part in parts))
        missed = float((tiny.logits(tmp_path / "fit") - wanted).abs().max())
        assert {part.what for part in parts} == {"DoRA"} and (missed < 1e-4) == (rank == 64)
    assert 1 > errors[0] > errors[1] > 1e-4 > 1e-6 > errors[2]
    assert read_adapter(tmp_path / "fit").rank == 32


def test_a_fits_error_is_that_of_delta_w(llama: "Tiny", tmp_path: Path) -> None:
    folder = saved_by_peft(llama.model, tmp_path / "dora", use_dora=True, target_modules=["q_proj"], use_rslora=True)
    exact, _ = llama.take(folder, approximate=True, rank=32)
    fit, parts = llama.take(folder, approximate=True)
    for part in parts:
        wanted, found = exact.delta(part.name), fit.delta(part.name)
        assert part.rank == 4 == fit.factors[part.name].rank
        assert part.error == pytest.approx(float((found - wanted).norm() / wanted.norm()), rel=1e-3)


def test_lora_biases_are_dropped_unless_they_are_zero(tinies: "Mapping[str, Tiny]", tmp_path: Path) -> None:
    tiny = tinies["gpt2"]
    folder = saved_by_peft(
        tiny.model, tmp_path / "biased", lora_bias=True, target_modules=["c_fc"], fan_in_fan_out=True
    )
    with pytest.raises(UnsupportedAdapterError, match=r"lora bias of .*c_fc.lora_B.bias and 1 more"):
        tiny.take(folder)
    adapter, parts = tiny.take(folder, approximate=True)
    assert len(adapter.factors) == 2
    assert [(part.kept, part.error) for part in parts if part.what == "lora bias"] == [("dropped", 1.0)] * 2


def test_trained_biases_and_saved_modules(tinies: "Mapping[str, Tiny]", tmp_path: Path) -> None:
    tiny = tinies["gpt2"]
    settings = {"target_modules": ["c_attn"], "fan_in_fan_out": True, "modules_to_save": ["c_fc", "ln_f"]}
    same = saved_by_peft(tiny.model, tmp_path / "same", bias="all", **settings)
    adapter, parts = tiny.take(same)  # what is the base's own is nothing to hold
    assert set(adapter.factors) == {f"transformer.h.{layer}.attn.c_attn" for layer in range(2)}
    assert {part.kept for part in parts} == {"exact"} and {"saved module", "trained bias"} < {p.what for p in parts}
    moved = saved_by_peft(tiny.model, tmp_path / "moved", bias="all", bias_step=0.1, **settings)
    with pytest.raises(UnsupportedAdapterError, match="saved module of"):
        tiny.take(moved)
    adapter, parts = tiny.take(moved, approximate=True, rank=32)
    found = {part.name: part for part in parts}
    assert found["transformer.h.0.mlp.c_fc"].error < 1e-5
    assert found["transformer.ln_f.weight"].kept == found["transformer.ln_f.bias"].kept == "dropped"
    assert adapter.factors["transformer.h.0.mlp.c_fc"].rank == 32


def test_embeddings_and_tied_outputs_are_dropped(llama: "Tiny", tmp_path: Path) -> None:
    targets = ["q_proj", "embed_tokens"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of tied weights
        folder = saved_by_peft(llama.model, tmp_path / "embedding", target_modules=targets)
    with pytest.raises(UnsupportedAdapterError, match=r"embedding LoRA of model\.embed_tokens"):
        llama.take(folder)
    adapter, parts = llama.take(folder, approximate=True)
    assert {name.rsplit(".", 1)[-1] for name in adapter.factors} == {"q_proj"}
    assert [part.error for part in parts if part.what == "embedding LoRA"] == [1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = saved_by_peft(llama.model, tmp_path / "tied", target_modules=["q_proj", "lm_head"])
    with pytest.raises(UnsupportedAdapterError, match="tied output of lm_head"):
        llama.take(folder)
