"""Training a given LoRA on: it starts where that is, whatever its ranks and scalings, and keeps its form."""

from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.trainers import ContinuedTrainer
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.merge import merged

RECIPE = HarvestRecipe(steps=15, batch_size=8, learning_rate=2e-2)
ROWS = [Encoded((10 + index, 20, 30 + index), (40 + index % 3, 2)) for index in range(8)]


def some_adapter(base: Base, **changed: object) -> Adapter:
    """Return an adapter with a rank and an alpha of its own on each module."""
    layout = target_layout(load_base(base, device="cpu").model, "auto")
    source, factors = torch.Generator().manual_seed(3), {}
    for index, item in enumerate(layout.modules):
        rank = 2 + index % 3
        lora_a, lora_b = (
            torch.randn(rank, item.in_features, generator=source),
            torch.randn(item.out_features, rank, generator=source),
        )
        factors[item.name] = Factors(lora_a * 0.1, lora_b * 0.1)
    given = {"alpha": 6.0, "alphas": {layout.modules[0].name: 3.0}, "fan_in_fan_out": layout.fan_in_fan_out}
    return Adapter(base.model_id, factors=factors, **(given | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("use_rslora", [False, True])
def test_it_starts_where_the_adapter_is(tiny_base: Base, tmp_path: Path, use_rslora: bool) -> None:
    loaded, start = load_base(tiny_base, device="cpu"), some_adapter(tiny_base, use_rslora=use_rslora)
    before = {name: item.clone() for name, item in loaded.model.state_dict().items()}
    with merged(loaded.model, start):
        nll = score_rows(loaded, ROWS).mean_nll
    losses: list[float] = []
    trainer = ContinuedTrainer(loaded, RECIPE, start)
    finetune(
        trainer, ROWS, state=tmp_path / "state", identity="x",
        on_step=lambda step, loss: losses.append(loss), on_checkpoint=lambda step, adapter: None,
    )  # fmt: skip
    after = trainer.adapter()
    trainer.close()
    assert losses[0] == pytest.approx(nll, rel=1e-4) and losses[-1] < losses[0] - 0.05
    assert list(after.factors) == list(start.factors)
    assert [item.rank for item in after.factors.values()] == [item.rank for item in start.factors.values()]
    assert (after.alpha, after.alphas, after.use_rslora) == (start.alpha, start.alphas, use_rslora)
    with merged(loaded.model, after):
        assert score_rows(loaded, ROWS).mean_nll < losses[0]
    left = loaded.model.state_dict()
    assert all(torch.equal(item, before[name]) for name, item in left.items()) and len(left) == len(before)


def test_before_the_first_step_it_is_the_adapter(llama_base: Base) -> None:
    start = some_adapter(llama_base)
    trainer = ContinuedTrainer(load_base(llama_base, device="cpu"), RECIPE, start)
    trainer.reset()
    for name, item in trainer.adapter().factors.items():
        assert torch.equal(item.lora_a, start.factors[name].lora_a)
        assert torch.equal(item.lora_b, start.factors[name].lora_b)
    trainer.close()


def test_an_adapter_that_does_not_fit(llama_base: Base) -> None:
    loaded, start = load_base(llama_base, device="cpu"), some_adapter(llama_base)
    strange = Adapter(llama_base.model_id, 4.0, {"model.layers.9.mlp": next(iter(start.factors.values()))})
    with pytest.raises(CorruptFileError, match="no module"):
        ContinuedTrainer(loaded, RECIPE, strange)
    name = next(iter(start.factors))
    turned = Adapter(llama_base.model_id, 4.0, {name: Factors(torch.ones(2, 7), torch.ones(5, 2))})
    with pytest.raises(CorruptFileError, match=r"in the base and .* in the adapter"):
        ContinuedTrainer(loaded, RECIPE, turned)
