"""What a LoRA can hold is held exactly: imported and written again, PEFT computes the same logits."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icmlora_cli.weights.adapter import read_adapter, write_adapter
from icmlora_cli.weights.merge import merged

if TYPE_CHECKING:
    from tests.weights.foreign.conftest import Tiny

ARCHITECTURES = ("llama", "gpt2", "qwen3", "gemma3")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@st.composite
def loras(draw: st.DrawFn, targets: list[str]) -> tuple[dict[str, object], dict[str, int], torch.dtype, int]:
    """Draw LoraConfig's settings, the modules with their ranks, a dtype, and a seed of the numbers."""
    modules = draw(st.lists(st.sampled_from(targets), min_size=1, unique=True))
    rank, alpha = draw(st.integers(1, 64)), draw(st.integers(1, 128))
    own = draw(st.lists(st.sampled_from(modules), unique=True, max_size=3))
    ranks = {name: draw(st.integers(1, 64)) for name in own}
    alphas = {name: draw(st.integers(1, 64)) for name in draw(st.lists(st.sampled_from(modules), unique=True))}
    last = modules[0].rsplit(".", 1)[-1]
    if draw(st.booleans()):  # a pattern by the last name alone, which several modules match
        alphas = {last: draw(st.integers(1, 64))} | alphas
    config = {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": draw(st.booleans()),
        "rank_pattern": {f"^{name}": value for name, value in ranks.items()},
        "alpha_pattern": alphas,
        "target_modules": modules,
    }
    return (
        config,
        {name: ranks.get(name, rank) for name in modules},
        draw(st.sampled_from(DTYPES)),
        draw(st.integers(0, 9999)),
    )


def factors(tiny: "Tiny", ranks: Mapping[str, int], dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, rank in ranks.items():
        facts = tiny.shapes.modules[name]
        for side, shape in (("A", (rank, facts.in_features)), ("B", (facts.out_features, rank))):
            drawn = torch.randn(*shape, generator=rng) * 0.05
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = drawn.to(dtype)
    return tensors


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_imported_and_exported_it_computes_the_same(
    tinies: "Mapping[str, Tiny]", write_lora: Callable[..., Path], architecture: str, data: st.DataObject
) -> None:
    tiny = tinies[architecture]
    config, ranks, dtype, seed = data.draw(loras(tiny.targets))
    with tempfile.TemporaryDirectory() as name:
        tensors = factors(tiny, ranks, dtype, seed)
        original = write_lora(Path(name, "original"), tensors, fan_in_fan_out=architecture == "gpt2", **config)
        adapter, parts = tiny.take(original)
        write_adapter(Path(name, "exported"), adapter, tiny.shapes)
        again = read_adapter(Path(name, "exported"))
        wanted, found = tiny.logits(original), tiny.logits(Path(name, "exported"))
    assert {part.kept for part in parts} == {"exact"} and {part.name: part.rank for part in parts} == ranks
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(wanted, tiny.plain(), atol=1e-5)
    with merged(tiny.model, again):  # what icmlora itself computes, by other sums
        assert torch.allclose(tiny.plain(), wanted, atol=1e-3, rtol=1e-3)
    for module in ranks:
        assert again.scaling(module) == adapter.scaling(module)
        key = f"base_model.model.{module}.lora_A.weight"
        assert torch.equal(again.factors[module].lora_a, tensors[key])
