"""Harvesting one task: it learns, repeats, resumes exactly, and leaves the base as it was."""

import math
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.errors import TrainingDivergedError, UsageError
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.optimise import apply_gradients
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.task_training import kept_steps
from icmlora_cli.lm.trainers import LoraTrainer, make_trainer, trainer_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.codec import relative_error
from icmlora_cli.weights.frame import FrameSpec, seeded_frame
from icmlora_cli.weights.merge import merged
from icmlora_cli.weights.schedules import one_cycle

RECIPE = HarvestRecipe(steps=12, batch_size=4, learning_rate=2e-2, keep=2, keep_every=3, save_every=4)
ROWS = [Encoded((10 + index, 20, 30 + index), (40 + index % 3, 2)) for index in range(24)]


def harvest(
    loaded: LoadedBase, state: Path, *, recipe: HarvestRecipe = RECIPE, stop: int | None = None
) -> tuple[list[float], dict[int, Adapter]]:
    trainer = make_trainer(loaded, recipe)
    losses: list[float] = []
    kept: dict[int, Adapter] = {}

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step == stop:
            raise KeyboardInterrupt

    try:
        finetune(
            trainer, ROWS, state=state, identity="x", on_step=on_step, on_checkpoint=lambda s, a: kept.update({s: a})
        )
    finally:
        trainer.close()
    return losses, kept


@pytest.mark.parametrize("kind", ["lora", "frozen-a", "frame"])
def test_it_learns_and_leaves_the_base_alone(tiny_base: Base, tmp_path: Path, kind: str) -> None:
    loaded = load_base(tiny_base, device="cpu")
    before = {name: item.clone() for name, item in loaded.model.state_dict().items()}
    framed = {"rank": 8, "learning_rate": 1e-1} if kind == "frame" else {}
    recipe = RECIPE.model_copy(update={"steps": 40, "parametrization": kind} | framed)
    losses, kept = harvest(loaded, tmp_path / "state", recipe=recipe)
    assert losses[-1] < losses[0] - 0.2
    assert sorted(kept) == [37, 40]
    after = loaded.model.state_dict()
    assert sorted(after) == sorted(before)
    assert all(torch.equal(item, before[name]) for name, item in after.items())


@pytest.mark.parametrize("kind", ["lora", "frozen-a", "frame"])
def test_a_resumed_harvest_equals_an_uninterrupted_one(tiny_base: Base, tmp_path: Path, kind: str) -> None:
    loaded = load_base(tiny_base, device="cpu")
    recipe = RECIPE.model_copy(update={"parametrization": kind})
    _, whole = harvest(loaded, tmp_path / "whole", recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        harvest(loaded, tmp_path / "state", recipe=recipe, stop=7)
    losses, resumed = harvest(loaded, tmp_path / "state", recipe=recipe)
    assert len(losses) == RECIPE.steps - 4
    assert sorted(resumed) == sorted(whole) == [9, 12]
    for step, adapter in whole.items():
        for name, item in adapter.factors.items():
            assert torch.equal(item.lora_a, resumed[step].factors[name].lora_a)
            assert torch.equal(item.lora_b, resumed[step].factors[name].lora_b)


def test_a_damaged_state_is_not_gone_on_with(llama_base: Base, tmp_path: Path) -> None:
    loaded = load_base(llama_base, device="cpu")
    _, whole = harvest(loaded, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        harvest(loaded, tmp_path / "state", stop=7)
    data = bytearray((tmp_path / "state").read_bytes())
    data[-5] ^= 64  # a bit of an optimizer moment: still a number, and not the one that was saved
    (tmp_path / "state").write_bytes(bytes(data))
    losses, again = harvest(loaded, tmp_path / "state")
    assert len(losses) == RECIPE.steps
    for step, adapter in whole.items():
        assert all(torch.equal(item.lora_b, again[step].factors[name].lora_b) for name, item in adapter.factors.items())


def test_all_tasks_start_from_one_lora_a(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    starts = []
    for seed in (0, 0, 1):
        trainer = LoraTrainer(loaded, RECIPE.model_copy(update={"seed": seed}))
        trainer.reset()
        starts.append(trainer.adapter())
        trainer.close()
    name = next(iter(starts[0].factors))
    first, second, other = (start.factors[name] for start in starts)
    assert torch.equal(first.lora_a, second.lora_a) and not torch.equal(first.lora_a, other.lora_a)
    assert not first.lora_b.any()
    bound = first.lora_a.shape[1] ** -0.5
    assert 0.8 * bound < float(first.lora_a.abs().max()) <= bound


def test_the_rate_rises_then_falls_to_zero() -> None:
    steps, top, warmup = RECIPE.steps, RECIPE.learning_rate, RECIPE.warmup
    rates = [one_cycle(step, steps, top, warmup) for step in range(steps)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(RECIPE.learning_rate)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_kept_steps_end_with_the_last() -> None:
    assert kept_steps(HarvestRecipe(steps=10, keep=3, keep_every=2)) == (6, 8, 10)
    assert kept_steps(HarvestRecipe(steps=3, keep=3, keep_every=2)) == (1, 3)


def test_a_loss_that_is_not_finite_is_told(llama_base: Base, tmp_path: Path) -> None:
    loaded = load_base(llama_base, device="cpu")
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[20] = torch.nan
    with pytest.raises(TrainingDivergedError, match="step 1"):
        harvest(loaded, tmp_path / "state")


def test_wrong_target_modules_are_told(llama_base: Base) -> None:
    with pytest.raises(UsageError, match="nothing_proj"):
        LoraTrainer(load_base(llama_base, device="cpu"), HarvestRecipe(target_modules=("nothing_proj",)))


def test_what_is_not_trained_is_what_the_seed_gives(llama_base: Base, tmp_path: Path) -> None:
    loaded = load_base(llama_base, device="cpu")
    frozen = RECIPE.model_copy(update={"parametrization": "frozen-a", "rank": 3})
    _, kept = harvest(loaded, tmp_path / "frozen", recipe=frozen)
    with trainer_of(loaded, frozen) as trainer:
        trainer.reset()
        start = trainer.adapter()
    for name, item in kept[12].factors.items():
        assert torch.equal(item.lora_a, start.factors[name].lora_a) and bool(item.lora_b.any())
    framed = RECIPE.model_copy(update={"parametrization": "frame", "rank": 3})
    _, kept = harvest(loaded, tmp_path / "framed", recipe=framed)
    layout = target_layout(loaded.model, "auto")
    frame = seeded_frame(layout, FrameSpec(framed.seed, 3), "")
    assert set(kept[12].factors) == {item.name for item in layout.modules}
    assert relative_error(frame, kept[12]) < 1e-4 and kept[12].rank == 3


def test_a_frame_trains_what_merging_gives(tiny_base: Base, tmp_path: Path) -> None:
    loaded = load_base(tiny_base, device="cpu")
    recipe = RECIPE.model_copy(update={"parametrization": "frame", "rank": 6})
    ids = torch.arange(5, 15)[None]
    trainer = make_trainer(loaded, recipe)
    with torch.no_grad():
        trainer.parameters["cores"].copy_(torch.randn(trainer.parameters["cores"].shape))
        within = trainer.model(input_ids=ids).logits
    adapter = trainer.adapter()
    trainer.close()
    with torch.no_grad():
        plain = loaded.model(input_ids=ids).logits
        with merged(loaded.model, adapter):
            assert torch.allclose(loaded.model(input_ids=ids).logits, within, atol=1e-4)
    assert not torch.allclose(plain, within, atol=1e-2)


def test_a_gradient_that_is_not_finite_takes_no_step() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter], lr=RECIPE.learning_rate)

    def step(loss: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss.backward()
        return apply_gradients(loss.detach(), optimizer, RECIPE, 0)[1]

    assert not math.isfinite(step(parameter.sqrt().sum()))  # the loss is 0, its gradient infinite
    assert not parameter.any()
    assert not math.isfinite(apply_gradients(torch.tensor(math.nan), optimizer, RECIPE, 0)[0]) and not parameter.any()
    assert math.isfinite(step((parameter - 1).square().sum())) and parameter.all()
