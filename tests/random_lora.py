"""LoRAs of random numbers on every kind of linear module of a tiny base."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from icmlora_cli.lm.load import quiet_transformers
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.foreign.check import BaseModule, BaseShapes

LINEAR = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "others": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


def config_of(base: Path) -> dict[str, object]:
    """Return what a base's ``config.json`` says."""
    value = json.loads((base / "config.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def random_lora(
    base: Path, *, seed: int = 0, ranks: Sequence[int] = (3,), alpha: float = 6.0, size: float = 1.0
) -> Adapter:
    """Return a LoRA on all linear modules of the blocks, their ranks in turn those of ``ranks``.

    Args:
        base: a model's folder.
        seed: of the numbers.
        ranks: one or more.
        alpha: of all modules.
        size: standard deviation of the numbers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    layout = target_layout(model, LINEAR.get(str(model.config.model_type), LINEAR["others"]))
    source, factors = torch.Generator().manual_seed(seed), {}
    for index, module in enumerate(layout.modules):
        rank = ranks[index % len(ranks)]
        lora_a = size * torch.randn(rank, module.in_features, generator=source)
        lora_b = size * torch.randn(module.out_features, rank, generator=source)
        factors[module.name] = Factors(lora_a, lora_b)
    return Adapter(str(base), alpha, factors, fan_in_fan_out=layout.fan_in_fan_out)


def fitting_base(adapter: Adapter) -> BaseShapes:
    """Return the shapes of a base that an adapter fits, for tests that write one that is of no base."""
    kind = "conv1d" if adapter.fan_in_fan_out else "linear"
    shapes = {name: (item.lora_b.shape[0], item.lora_a.shape[1]) for name, item in adapter.factors.items()}
    return BaseShapes({name: BaseModule(kind, *shape) for name, shape in shapes.items()}, {})
