"""How often the host waits for the device: what makes small models slow. The bounds are what is done now."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.interface import NetworkConfig, TrainStep
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.terms import ElboTerm, TaskData, TrainingData
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.optimise import adamw
from icmlora_cli.lm.passes import StepPasses, take_step
from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.train import train
from tests.sim.conftest import HARVEST, Place, make_place
from tests.sim.test_workflows import EPISODES, TOKEN
from tests.sim_device import SimDevice
from tests.train_recipes import train_recipe, varied

pytestmark = pytest.mark.sim

MASKS = 2  # values that transformers reads in each forward pass, to see whether it needs a mask


@pytest.fixture(scope="module")
def place(sim: SimDevice, tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place("sim:0", tiny_bases["llama"], tmp_path_factory.mktemp("waits"))


@pytest.fixture(scope="module")
def loaded(place: Place) -> LoadedBase:
    return load_base(place.base, device="sim:0")


@pytest.fixture(scope="module")
def rows(place: Place, loaded: LoadedBase) -> list[Encoded]:
    return encode_task(loaded.family, place.tasks[0], place.tasks[0].examples("train"))


@pytest.mark.parametrize("kind", ["lora", "frozen-a", "frame"])
def test_a_step_of_training_an_adapter_reads_loss_and_norm_at_once(
    sim: SimDevice, loaded: LoadedBase, rows: list[Encoded], kind: str
) -> None:
    recipe: HarvestRecipe = HARVEST.model_copy(update={"parametrization": kind})
    with trainer_of(loaded, recipe) as trainer:
        trainer.reset()
        optimizer = adamw(trainer)
        for step in range(2):
            with sim.counted() as waits:
                take_step(StepPasses(trainer), rows[:4], optimizer, step)
    assert waits["read"] == 1 + MASKS and waits["size"] == 0
    assert waits["upload"] <= 4  # a batch's four tensors; from pinned memory CUDA does not wait for them


def test_a_batch_of_scoring_waits_for_its_two_results(sim: SimDevice, loaded: LoadedBase, rows: list[Encoded]) -> None:
    with sim.counted() as waits:
        score_rows(loaded, rows[:8], batch_size=4)
    assert waits["read"] == 2 * (2 + MASKS) and waits["size"] == 0


@pytest.mark.parametrize("arch", ["token", "conv1d", "p-diff"])
def test_a_batch_of_harvested_adapters_reads_nothing(sim: SimDevice, arch: str) -> None:
    recipe = train_recipe(steps=4, batch_size=4, latent_dim=4)
    none = SlotStatistics(torch.zeros(8), torch.ones(8))
    space = ConditionSpace(none, none)
    config = NetworkConfig(
        arch=arch, places=((0, 0), (0, 1)), width=3, hidden=8, latent_dim=4, hidden_dim=16, code_dim=8,
        learned_prior=arch == "token",
    )  # fmt: skip
    model = build(config).to("sim:0")
    tasks = [TaskData(torch.randn(1, 2, 3, 3), [torch.randn(8)], [torch.randn(8)]) for _ in range(2)]
    data = TrainingData(tasks, space, torch.ones(2, 3, 3, dtype=torch.bool))
    term = ElboTerm.of(data, data.tokens().to("sim:0"), recipe.objective, 4, 1.0)
    with sim.counted() as waits:
        term.backward(model, TrainStep(0, 0, 4), torch.Generator().manual_seed(0))
    assert waits["read"] == 0  # the step reads the losses of all terms
    assert waits["upload"] <= 5  # which rows, their supports (two tensors), and noise
    assert waits["size"] <= 1  # which numbers a core has, at the first step


@pytest.mark.parametrize("further", [{}, {"swap_weight": 0.0, "distill_weight": 0.0}])
def test_a_step_of_training_reads_the_losses_of_all_terms_and_the_norm_at_once(
    sim: SimDevice, place: Place, further: dict[str, float]
) -> None:
    episodes = EPISODES.model_copy(update={"validation_tasks": 0, "validate_every": 100} | further)
    recipe = varied(
        TOKEN, episodes=episodes, pretrain_steps=2, save_every=100, reader="attention", reader_dim=8, condition_dim=8
    )
    reads: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "train":
            reads.append(sim.waits["read"])

    train.run(
        place.seen, place.base, recipe, place.home, name=f"waits{len(further)}", device="sim:0", on_progress=on_progress
    )
    steps = [after - before for before, after in pairwise(reads)][:-1]  # the last one looks at the result
    passes = 1 if further else 2  # through the base: the contrast of adapters has one of its own
    assert steps[0] == 1 and max(steps[2:]) == 1 + passes * MASKS
