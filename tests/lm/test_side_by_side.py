"""Adapters that are trained side by side are those that are trained one after the other."""

from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.checkpointing import checkpointed
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.side_by_side import SharedPasses, make_slots
from icmlora_cli.lm.task_training import Listeners, TaskTraining
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter

RECIPE = HarvestRecipe(steps=6, batch_size=5, learning_rate=2e-2, keep=2, keep_every=3, save_every=2, rank=3, alpha=5.0)
KINDS = ("lora", "frozen-a", "frame")
TASKS = (
    [  # of unlike lengths; the second has fewer rows than a batch
        [Encoded(tuple(range(9, 12 + index % 4)), (40 + task, 2)[: 1 + index % 2]) for index in range(count)]
        for task, count in enumerate((11, 3, 8))
    ]
    + [[Encoded(tuple(range(20, 42)), (50, 51, 2)) for _ in range(6)]]
)


def recipe_of(**settings: object) -> HarvestRecipe:
    return HarvestRecipe.model_validate(RECIPE.model_dump() | settings)


def alone(loaded: LoadedBase, folder: Path, recipe: HarvestRecipe) -> list[tuple[list[float], Adapter]]:
    found = []
    with trainer_of(loaded, recipe) as trainer:
        for index, rows in enumerate(TASKS):
            losses: list[float] = []
            state = folder / f"alone-{index}"
            finetune(trainer, rows, state=state, identity="x", on_step=lambda _, loss, to=losses: to.append(loss))
            found.append((losses, trainer.adapter()))
    return found


def together(loaded: LoadedBase, folder: Path, recipe: HarvestRecipe) -> list[tuple[list[float], Adapter]]:
    side = make_slots(loaded, recipe, len(TASKS))
    losses: list[list[float]] = [[] for _ in TASKS]
    trainings = [
        TaskTraining(
            side.slots[index],
            rows,
            Listeners(folder / f"together-{index}", "x", lambda _, loss, to=losses[index]: to.append(loss)),
        )
        for index, rows in enumerate(TASKS)
    ]
    passes = SharedPasses(side)
    with checkpointed(loaded.model, on=recipe.gradient_checkpointing):
        for _ in range(recipe.steps):
            values = passes.add_gradients({index: item.batch() for index, item in enumerate(trainings)})
            for index, item in enumerate(trainings):
                item.advance(values[index])
    adapters = [slot.adapter() for slot in side.slots]
    side.close()
    return list(zip(losses, adapters, strict=True))


def assert_same(one: list[tuple[list[float], Adapter]], other: list[tuple[list[float], Adapter]]) -> None:
    for (losses, adapter), (again, twin) in zip(one, other, strict=True):
        assert again == pytest.approx(losses, abs=1e-4)
        assert (adapter.base_model, adapter.alpha, adapter.fan_in_fan_out) == (
            twin.base_model, twin.alpha, twin.fan_in_fan_out
        )  # fmt: skip
        assert set(adapter.factors) == set(twin.factors)
        for name, item in adapter.factors.items():
            assert torch.allclose(item.lora_a, twin.factors[name].lora_a, atol=1e-4)
            assert torch.allclose(item.lora_b, twin.factors[name].lora_b, atol=1e-4)
            assert item.lora_b.any()


@pytest.mark.parametrize("kind", KINDS)
def test_side_by_side_is_one_after_the_other(tiny_base: Base, tmp_path: Path, kind: str) -> None:
    loaded = load_base(tiny_base, device="cpu")
    before = {name: item.clone() for name, item in loaded.model.state_dict().items()}
    recipe = recipe_of(parametrization=kind)
    one = alone(loaded, tmp_path, recipe)
    assert_same(one, together(loaded, tmp_path, recipe))
    factors = [adapter.factors[next(iter(adapter.factors))] for _, adapter in one]
    assert not torch.allclose(factors[0].lora_b, factors[2].lora_b, atol=1e-2)  # tasks differ, or nothing is shown
    after = loaded.model.state_dict()
    assert sorted(after) == sorted(before) and all(torch.equal(item, before[name]) for name, item in after.items())
    assert not any(module._forward_hooks for name, module in loaded.model.named_modules() if "proj" in name)


@pytest.mark.parametrize("settings", [{"micro_batch": 2}, {"gradient_checkpointing": True}], ids=str)
@pytest.mark.parametrize("kind", ["lora", "frame"])
def test_smaller_passes_change_nothing(
    llama_base: Base, tmp_path: Path, kind: str, settings: dict[str, object]
) -> None:
    loaded = load_base(llama_base, device="cpu")
    one = alone(loaded, tmp_path, recipe_of(parametrization=kind))
    assert_same(one, together(loaded, tmp_path, recipe_of(parametrization=kind, **settings)))


def test_a_state_of_one_is_a_state_of_the_other(llama_base: Base, tmp_path: Path) -> None:
    loaded = load_base(llama_base, device="cpu")
    for kind in KINDS:
        recipe = recipe_of(parametrization=kind)
        folder = tmp_path / kind
        folder.mkdir()
        alone(loaded, folder, recipe)
        side = make_slots(loaded, recipe, 2)
        training = TaskTraining(side.slots[1], TASKS[0], Listeners(folder / "alone-0", "x", lambda step, loss: None))
        assert training.step == 4
        with trainer_of(loaded, recipe) as trainer:
            kept = TaskTraining(trainer, TASKS[0], Listeners(folder / "alone-0", "x", lambda step, loss: None))
            assert set(kept.trained.parameters) == set(training.trained.parameters)
            for name, item in kept.trained.parameters.items():
                assert torch.equal(item, training.trained.parameters[name])
        side.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("kind", ["lora", "frame"])
def test_compiled_passes_give_the_same(llama_base: Base, tmp_path: Path, kind: str) -> None:
    loaded = load_base(llama_base, device="cpu")
    torch._dynamo.reset()
    one = alone(loaded, tmp_path, recipe_of(parametrization=kind))
    torch._dynamo.utils.counters.clear()
    assert_same(one, together(loaded, tmp_path, recipe_of(parametrization=kind, compile=True)))
    stats = torch._dynamo.utils.counters["stats"]
    assert 1 <= stats["unique_graphs"] <= 2  # rows of all steps are in one bucket, with gradients


def test_what_cannot_share_a_pass_is_told(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    with pytest.raises(UsageError, match="several tasks are to share a pass") as caught:
        make_slots(loaded, recipe_of(packing=True), 2)
    assert caught.value.hint is not None and "--tasks-per-batch 1" in caught.value.hint
    both = recipe_of(packing=True, compile=True)
    with trainer_of(loaded, both) as trainer, pytest.raises(UsageError, match="compile wants few"):
        finetune(trainer, TASKS[0], state=Path("none"), identity="x", on_step=lambda step, loss: None)
