"""The rivals, conv1d and p-diff, learn what they are for: the checkpoints of one task, from its text."""

from pathlib import Path

import pytest
import torch

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.fit import FitOptions, fit
from icmlora_cli.generator.interface import Network, NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.terms import TaskData, TrainingData
from tests.train_recipes import train_recipe

HIDDEN, CHECKPOINTS = 8, 12
ERROR = 0.1  # ||made - last checkpoint|| / ||last checkpoint||, which is 1 for predicting zero
RIVALS = {
    "conv1d": train_recipe(
        arch="conv1d", latent_dim=16, hidden_dim=32, kl_weight=0.08, kl_warmup=0.0, epochs=60, patience=8,
        batch_size=2, learning_rate=5e-3,
    ),
    "p-diff": train_recipe(
        arch="p-diff", latent_dim=8, hidden_dim=32, epochs=120, patience=15, autoencoder_share=0.5, batch_size=2,
        learning_rate=3e-3,
    ),
}  # fmt: skip


def checkpoints() -> TrainingData:
    """Return the last checkpoints of one task, which settle, with four descriptions and four draws of examples."""
    rng = torch.Generator().manual_seed(5)
    end, away = torch.randn(2, 4, 8, 8, generator=rng)
    tokens = torch.stack([end + 0.1 * (1 - at / (CHECKPOINTS - 1)) * away for at in range(CHECKPOINTS)])
    readings = torch.randn(2, 1, HIDDEN, generator=rng) + 0.1 * torch.randn(2, 4, HIDDEN, generator=rng)
    space = ConditionSpace(SlotStatistics.of(readings[0]), SlotStatistics.of(readings[1]))
    task = TaskData(tokens, list(readings[0]), list(readings[1]))
    return TrainingData([task], space, torch.ones(4, 8, 8, dtype=torch.bool), 0.1)


def trained(recipe: TrainRecipe, data: TrainingData, state: Path) -> Network:
    """Return the networks after their training."""
    sizes, places = recipe.network, tuple((layer, 0) for layer in range(4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(
            NetworkConfig(
                sizes.arch, places, 8, HIDDEN, sizes.latent_dim, sizes.hidden_dim, sizes.code_dim,
                learned_prior=False, batch_norm=sizes.arch == "conv1d",
            )
        )  # fmt: skip
    optimiser = recipe.optimiser.resolved(CHECKPOINTS)
    fit(model, data, recipe.objective, optimiser, FitOptions(state, "k", lambda losses: None))
    return model.eval()


@pytest.mark.parametrize("arch", RIVALS)
def test_a_rival_makes_its_own_tasks_adapter_from_the_text(tmp_path: Path, arch: str) -> None:
    data = checkpoints()
    model = trained(RIVALS[arch], data, tmp_path / "state")
    task = data.tasks[0]
    with torch.no_grad():
        c = model.read(data.space.support(task.texts[0], None))
        for rng in (None, torch.Generator().manual_seed(1)):
            made, last = model.decode(model.sample_latent(c, rng), c)[0], task.tokens[-1]
            assert float((made - last).norm() / last.norm()) < ERROR
