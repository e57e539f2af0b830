"""A batch that is cut into parts has the losses, the gradients and the noise of the whole batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.interface import Network, NetworkConfig, TrainStep
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.noise import RowsRng, integers, normal
from icmlora_cli.generator.terms import ElboTerm, TaskData, TrainingData
from tests.train_recipes import train_recipe

T = TypeVar("T")
CPU = torch.device("cpu")
RECIPE = train_recipe(steps=8, latent_dim=4, prior_share=0.3, neighbour_weight=0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("repeats", [1, 3])
def test_rows_draw_what_the_whole_batch_draws(repeats: int) -> None:
    whole = normal((5 * repeats, 2), seeded(), CPU, repeats=repeats).unflatten(0, (repeats, 5))
    times = integers(100, 5 * repeats, seeded(), CPU, repeats=repeats).unflatten(0, (repeats, 5))
    for rows in (slice(0, 2), slice(2, 5)):
        count = rows.stop - rows.start
        drawn = normal((count * repeats, 2), RowsRng(seeded(), rows, 5), CPU, repeats=repeats)
        assert torch.equal(drawn, whole[:, rows].flatten(0, 1))
        numbers = integers(100, count * repeats, RowsRng(seeded(), rows, 5), CPU, repeats=repeats)
        assert torch.equal(numbers, times[:, rows].flatten())


def term_and_model(arch: str, remembered: bool) -> tuple[ElboTerm, Network]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tasks = [
            TaskData(torch.randn(2, 4, 3, 3), [torch.randn(8)], [torch.randn(8)], torch.rand(4, 3, 3) + 0.5)
            for _ in range(3)
        ]
        config = NetworkConfig(
            arch=arch, places=((0, 0), (0, 1), (1, 0), (1, 1)), width=3, hidden=8, latent_dim=4, hidden_dim=16,
            code_dim=8, learned_prior=arch == "token", remembered=3 if remembered else 0,
        )  # fmt: skip
        model = build(config)
    none = SlotStatistics(torch.zeros(8), torch.ones(8))
    mask = torch.ones(4, 3, 3, dtype=torch.bool)
    mask[1, 2] = False
    data = TrainingData(tasks, ConditionSpace(none, none), mask, condition_noise=0.1)
    return ElboTerm.of(data, data.tokens(), RECIPE.objective, 7, 1.0), model


def test_a_batch_whose_rows_are_normalised_together_is_never_cut() -> None:
    term, plain = term_and_model("conv1d", remembered=False)
    model = build(replace(plain.config, batch_norm=True))
    counts: list[int] = []

    def counted(count: int, run: Callable[[int], T]) -> T:
        counts.append(count)
        return run(count)

    whole = term.backward(model, TrainStep(0, 3, 8), seeded(1))
    parts = replace(term, at_once=counted).backward(model, TrainStep(0, 3, 8), seeded(1))
    assert parts == whole and counts == [1]  # one thing, which either fits into memory or does not


KINDS = [("token", False, 0), ("token", True, 0), ("conv1d", False, 0), ("p-diff", False, 0), ("p-diff", False, 1)]


@pytest.mark.parametrize(("arch", "remembered", "stage"), KINDS)
def test_a_batch_in_parts_gives_the_same_gradients(arch: str, remembered: bool, stage: int) -> None:
    term, model = term_and_model(arch, remembered)
    model.begin(stage, term.tokens)
    earlier = next(iter(model.parameters()))

    def gradients(term: ElboTerm) -> tuple[dict[str, float], dict[str, torch.Tensor], torch.Tensor]:
        model.zero_grad()
        earlier.grad = torch.ones_like(earlier)  # of another term
        rng = seeded(1)
        values = term.backward(model, TrainStep(stage, 3, 8), rng)
        found = {name: item.grad.clone() for name, item in model.named_parameters() if item.grad is not None}
        return {name: float(value) for name, value in values.items()}, found, rng.get_state()

    def thrice(count: int, run: Callable[[int], T]) -> T:
        run(4)  # what was computed before memory ran out does not count
        return run(3)

    whole, parts = gradients(term), gradients(replace(term, at_once=thrice))
    assert parts[0] == pytest.approx(whole[0], rel=1e-5) and whole[0]
    assert parts[1].keys() == whole[1].keys()
    for name, item in whole[1].items():
        assert torch.allclose(parts[1][name], item, rtol=1e-4, atol=1e-6), name
    assert torch.equal(parts[2], whole[2])  # the next step draws the same
