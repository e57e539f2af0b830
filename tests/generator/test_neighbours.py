"""The prior of neighbours: which tasks it finds alike, what it is without one, what it remembers, how it is trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics, Support
from icmlora_cli.generator.fit import FitOptions, StepLosses, fit
from icmlora_cli.generator.interface import Batch, NetworkConfig, Objective, TrainStep
from icmlora_cli.generator.neighbours import NeighbourPrior
from icmlora_cli.generator.networks import TokenCVAE, build, kl_divergence
from icmlora_cli.generator.terms import TaskData, TrainingData
from tests.train_recipes import train_recipe, varied

HIDDEN, TASKS = 12, 5
CONFIG = NetworkConfig(
    "token", ((0, 0), (0, 1), (1, 0), (1, 1)), 3, HIDDEN, 4, 32, 8,
    remembered=TASKS, reader="attention", reader_dim=16, condition_dim=20,
)  # fmt: skip
RECIPE = train_recipe(
    steps=300, batch_size=8, learning_rate=3e-3, save_every=50, prior="neighbours", prior_share=0.5, condition_noise=0.1
)
SPACE = ConditionSpace(*(SlotStatistics(torch.zeros(HIDDEN), torch.ones(HIDDEN)) for _ in range(2)))
MASK = torch.ones(4, 3, 3, dtype=torch.bool)


def problem() -> list[TaskData]:
    """Tasks whose texts and demonstrations lie around centres of their own; the last one has no demonstrations."""
    rng = torch.Generator().manual_seed(1)
    data = []
    for index in range(TASKS):
        tokens = torch.randn(1, 4, 3, 3, generator=rng)
        centres = torch.randn(2, 1, HIDDEN, generator=rng)
        texts, shown = ([centre + 0.1 * torch.randn(3, HIDDEN, generator=rng) for _ in range(2)] for centre in centres)
        data.append(TaskData(tokens, texts, shown if index < TASKS - 1 else []))
    return data


def network() -> TokenCVAE:
    torch.manual_seed(0)
    model = build(CONFIG)
    assert isinstance(model, TokenCVAE)
    return model


def remembering() -> tuple[TokenCVAE, NeighbourPrior]:
    model = network()
    texts = [Support.stack([SPACE.support(item, None) for item in task.texts]) for task in problem()]
    shown = [
        Support.stack([SPACE.support(None, item) for item in task.demonstrations]) if task.demonstrations else None
        for task in problem()
    ]
    model.remember(texts, shown)
    assert model.remembered is not None
    return model, model.remembered


def learn(model: TokenCVAE, state: Path, recipe: TrainRecipe = RECIPE, stop: int | None = None) -> list[StepLosses]:
    def on_step(losses: StepLosses) -> None:
        if losses.step == stop:
            raise KeyboardInterrupt

    data = TrainingData(problem(), SPACE, MASK, recipe.data.condition_noise)
    return list(fit(model, data, recipe.objective, recipe.optimiser, FitOptions(state, "k", on_step)))


@torch.no_grad()
def test_a_task_is_most_like_itself_by_either_slot_and_by_both() -> None:
    model, prior = remembering()
    for own, task in enumerate(problem()):
        slots = [(task.texts[0], None)]
        if task.demonstrations:
            slots += [(None, task.demonstrations[0]), (task.texts[0], task.demonstrations[0])]
        for text, shown in slots:
            weights = prior.weights(model.read(SPACE.support(text, shown)))
            assert weights.shape == (1, TASKS) and float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
            assert int(weights.argmax()) == own


@torch.no_grad()
def test_what_has_no_demonstrations_is_as_unlike_by_them_as_can_be_told() -> None:
    model, prior = remembering()
    prior.scales[:, 2] = -30.0  # by the pooled states alone
    prior.scales[:, 0] = -30.0
    logits = prior.logits(model.read(SPACE.support(None, problem()[0].demonstrations[0])))[0]
    assert float(logits[-1]) == pytest.approx(0.0, abs=1e-6) and float(logits[0]) > 1.0
    nothing = prior.weights(model.read(SPACE.support(None, None)))
    assert torch.allclose(nothing, torch.full((1, TASKS), 1 / TASKS))


@torch.no_grad()
def test_the_prior_is_the_weighted_mean_and_what_is_made_of_others_leaves_the_own_out() -> None:
    model, prior = remembering()
    c = model.read(Support.stack([SPACE.support(task.texts[0], None) for task in problem()[:2]]))
    weights = prior.weights(c)
    mean, log_variance = model.prior(c)
    assert torch.allclose(mean, weights @ prior.means) and torch.allclose(log_variance, weights @ prior.log_variances)
    tokens = torch.randn(TASKS + 1, 4, 3, 3)
    owners = torch.tensor([0, 1, 1, 2, 3, 4])
    made = prior.mean_of_others(c, torch.tensor([1, 0]), tokens, owners)
    first = weights[0, [0, 2, 3, 4]] / weights[0, [0, 2, 3, 4]].sum()
    assert torch.allclose(made[0], torch.einsum("n,nmij->mij", first, tokens[[0, 3, 4, 5]]), atol=1e-4)
    second = weights[1, 1:] / weights[1, 1:].sum()
    each = torch.stack([tokens[1:3].mean(0), *tokens[3:]])
    assert torch.allclose(made[1], torch.einsum("n,nmij->mij", second, each), atol=1e-4)


@torch.no_grad()
def test_samples_are_of_the_tasks_by_their_weights() -> None:
    model, prior = remembering()
    prior.log_variances.fill_(-40.0)  # each Gaussian a point, so that z says whose it is
    prior.scales -= 3.0
    c = model.read(SPACE.support(problem()[0].texts[0], None))
    rng = torch.Generator().manual_seed(0)
    counts = torch.zeros(TASKS)
    for _ in range(2000):
        distances = (model.sample_latent(c, rng) - prior.means).norm(dim=1)
        assert float(distances.min()) < 1e-3
        counts[distances.argmin()] += 1
    assert torch.allclose(counts / 2000, prior.weights(c)[0], atol=0.04)
    assert torch.equal(model.sample_latent(c, None), model.prior(c)[0])


@torch.no_grad()
def test_losses_are_those_of_the_own_part_and_of_choosing_it() -> None:
    model, prior = remembering()
    tasks, tokens = torch.tensor([2, 0, 2]), torch.cat([task.tokens for task in problem()])
    support = Support.stack([SPACE.support(problem()[own].texts[0], None) for own in tasks.tolist()])
    objective = Objective(RECIPE.objective, MASK, tokens.square().mean())
    found = model.losses(
        Batch(tokens, torch.arange(TASKS), tasks, support), objective, TrainStep(0, 299, 300), torch.Generator()
    )
    c = model.read(support)
    own = (prior.means[tasks], prior.log_variances[tasks])
    assert float(found.parts["kl"]) == pytest.approx(
        float(kl_divergence(model.encode(tokens[tasks], c), own)), rel=1e-5
    )
    chosen = prior.weights(c)[torch.arange(3), tasks]
    assert float(found.parts["choice"]) == pytest.approx(float(-chosen.log().mean()), rel=1e-4)
    elbo = found.parts["reconstruction"] + RECIPE.objective.kl_weight * found.parts["kl"]
    made = prior.mean_of_others(c, tasks, tokens, torch.arange(TASKS))
    error = float((made - tokens[tasks]).square().mean() / tokens.square().mean())
    assert float(found.parts["neighbours"]) == pytest.approx(error, rel=1e-4)
    weights = (
        RECIPE.objective.choice_weight * found.parts["choice"]
        + RECIPE.objective.neighbour_weight * found.parts["neighbours"]
    )
    total = 0.5 * (elbo + weights) + 0.5 * found.parts["from_prior"]
    assert float(found.total) == pytest.approx(float(total), rel=1e-5)


def test_every_number_is_trained(tmp_path: Path) -> None:
    model, before = network(), network()
    learn(model, tmp_path / "s", varied(RECIPE, steps=40))
    still = [name for name, item in before.named_parameters() if torch.equal(item, model.get_parameter(name))]
    assert still == []


@torch.no_grad()
def test_it_learns_to_choose_and_to_reconstruct_from_text(tmp_path: Path) -> None:
    model = network()
    with torch.enable_grad():
        curve = learn(model, tmp_path / "s", varied(RECIPE, steps=500))
    assert curve[-1].values["choice"] < 0.1
    model.eval()
    for own, task in enumerate(problem()):
        c = model.read(SPACE.support(task.texts[1], None))
        made = model.decode(model.sample_latent(c, None), c)[0]
        errors = [float((made - other.tokens[0]).norm() / other.tokens[0].norm()) for other in problem()]
        assert errors.index(min(errors)) == own and errors[own] < 0.5


def test_resumed_equals_uninterrupted_between_two_readings_of_the_tasks(tmp_path: Path) -> None:
    recipe = varied(RECIPE, steps=70, save_every=10)
    whole = network()
    learn(whole, tmp_path / "whole", recipe)
    with pytest.raises(KeyboardInterrupt):
        learn(network(), tmp_path / "state", recipe, stop=47)
    resumed = network()
    learn(resumed, tmp_path / "state", recipe)
    for name, item in whole.state_dict().items():
        assert torch.equal(item, resumed.state_dict()[name]), name


@torch.no_grad()
def test_the_readings_are_those_of_the_reader_as_it_is_in_the_end(tmp_path: Path) -> None:
    model = network()
    with torch.enable_grad():
        learn(model, tmp_path / "s", varied(RECIPE, steps=33))
    assert model.remembered is not None
    kept = model.remembered.readings.clone()
    model.remember([Support.stack([SPACE.support(item, None) for item in task.texts]) for task in problem()])
    assert torch.equal(kept, model.remembered.readings)


def test_without_neighbours_nothing_of_them_is_kept() -> None:
    model = build(replace(CONFIG, remembered=0))
    assert not [name for name in model.state_dict() if name.startswith("remembered")]
