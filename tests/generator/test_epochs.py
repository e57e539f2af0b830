"""Training by epochs: each takes every adapter once, a stage ends when its loss is flat, and resuming is exact."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.generator.fit import FitOptions, StepLosses, fit
from icmlora_cli.generator.interface import Batch, Losses, Network, NetworkConfig, Objective, TrainStep
from icmlora_cli.generator.noise import Rng
from tests.generator.test_fit import HIDDEN, PLACES, RECIPE, network, problem
from tests.train_recipes import varied

ADAPTERS = len(problem().tokens())  # 6, in batches of 4: two steps an epoch
EPOCHS = varied(RECIPE, epochs=60, patience=2, batch_size=4, save_every=7)


class Recorder(Network):
    """A network that keeps which adapters it was given, and whose loss never falls."""

    def __init__(self) -> None:
        super().__init__(NetworkConfig("token", PLACES, 3, HIDDEN, 4, 8, 8))
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.rows: list[list[int]] = []

    def losses(self, batch: Batch, objective: Objective, train_step: TrainStep, rng: Rng) -> Losses:
        self.rows.append(batch.rows.tolist())
        assert batch.tasks.tolist() == [row // 2 for row in batch.rows.tolist()]
        loss = 1.0 + 0.0 * self.number
        return Losses(loss, {"reconstruction": loss})


def train(model: Network, state: Path, recipe: TrainRecipe, stop: int | None = None) -> Sequence[StepLosses]:
    def on_step(losses: StepLosses) -> None:
        if losses.step == stop:
            raise KeyboardInterrupt

    optimiser = recipe.optimiser.resolved(ADAPTERS)
    return fit(model, problem(), recipe.objective, optimiser, FitOptions(state, "k", on_step))


def test_an_epoch_takes_every_adapter_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    model = Recorder()
    train(model, tmp_path / "s", varied(EPOCHS, epochs=5, patience=None))
    assert [len(rows) for rows in model.rows] == [4, 2] * 5
    epochs = [model.rows[at] + model.rows[at + 1] for at in range(0, 10, 2)]
    assert all(sorted(rows) == list(range(ADAPTERS)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) > 1


def test_without_epochs_every_step_draws(tmp_path: Path) -> None:
    model = Recorder()
    train(model, tmp_path / "s", varied(EPOCHS, epochs=None, patience=None, steps=30))
    assert [len(rows) for rows in model.rows] == [4] * 30
    assert set(Counter(row for rows in model.rows for row in rows)) == set(range(ADAPTERS))


def test_a_flat_loss_ends_the_training(tmp_path: Path) -> None:
    model = Recorder()
    curve = train(model, tmp_path / "s", EPOCHS)
    assert len(model.rows) == 4 * EPOCHS.optimiser.patience * 2  # a window to compare with, then three that are level
    assert curve[-1].step == len(model.rows) and curve[-1].values["flat"] == 1.0


def test_a_loss_that_falls_to_the_end_takes_all_epochs(tmp_path: Path) -> None:
    curve = train(network(), tmp_path / "s", varied(EPOCHS, epochs=8))
    assert curve[-1].step == 16 and not any("flat" in losses.values for losses in curve)


@pytest.mark.parametrize("arch", ["token", "conv1d", "p-diff"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, arch: str) -> None:
    recipe = varied(EPOCHS, epochs=2000, patience=4, latent_dim=4)
    whole = network(arch)
    undisturbed = train(whole, tmp_path / "whole", recipe)
    ends = [losses.step for losses in undisturbed if "flat" in losses.values]
    assert len(ends) == (2 if arch == "p-diff" else 1) and ends[-1] < 2000 * 2  # every stage ended since it was flat
    for stop in (5, ends[0] - 1, ends[0], ends[0] + 1, ends[-1] - 3):
        if stop >= ends[-1]:
            continue
        with pytest.raises(KeyboardInterrupt):
            train(network(arch), tmp_path / f"state {stop}", recipe, stop=stop)
        resumed = network(arch)
        assert train(resumed, tmp_path / f"state {stop}", recipe) == undisturbed
        for name, item in whole.state_dict().items():
            assert torch.equal(item, resumed.state_dict()[name]), name
