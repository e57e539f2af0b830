"""Training: it learns tasks by their conditions, repeats by seed, and resumes exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics, Support, pooled
from icmlora_cli.generator.fit import FitOptions, StepLosses, Watch, fit
from icmlora_cli.generator.interface import Batch, Network, NetworkConfig, Objective, TrainStep
from icmlora_cli.generator.networks import CVAE, build, sample
from icmlora_cli.generator.terms import ElboTerm, TaskData, TrainingData
from tests.train_recipes import train_recipe, varied

HIDDEN = 8
PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))
RECIPE = train_recipe(steps=120, batch_size=8, learning_rate=3e-3, save_every=50, hidden_dim=32, code_dim=8)


def problem(tasks: int = 3) -> TrainingData:
    rng = torch.Generator().manual_seed(1)
    data = []
    for _ in range(tasks):
        core = torch.randn(1, 4, 3, 3, generator=rng)
        tokens = core + 0.01 * torch.randn(2, 4, 3, 3, generator=rng)
        centre = torch.randn(2, 1, HIDDEN, generator=rng)
        near = 0.1 * torch.randn(2, 5, HIDDEN, generator=rng)
        data.append(TaskData(tokens, centre[0] + near[0], centre[1] + near[1]))
    space = ConditionSpace(
        SlotStatistics.of(torch.cat([item.texts for item in data])),
        SlotStatistics.of(torch.cat([item.demonstrations for item in data])),
    )
    noise = RECIPE.data.condition_noise
    return TrainingData(data, space, torch.ones(4, 3, 3, dtype=torch.bool), noise)


def network(arch: str = "token", **head: Any) -> Network:
    torch.manual_seed(0)
    sizes = RECIPE.network
    return build(NetworkConfig(arch, PLACES, 3, HIDDEN, 4, sizes.hidden_dim, sizes.code_dim, **head))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def train(model: Network, state: Path, recipe: TrainRecipe = RECIPE, stop: int | None = None) -> Sequence[StepLosses]:
    def on_step(losses: StepLosses) -> None:
        if losses.step == stop:
            raise KeyboardInterrupt

    return fit(model, problem(), recipe.objective, recipe.optimiser, FitOptions(state, "k", on_step))


def test_it_learns_each_task_from_its_condition(tmp_path: Path) -> None:
    model = network()
    curve = train(model, tmp_path / "s.safetensors", varied(RECIPE, steps=400))
    assert curve[-1].values["reconstruction"] < 0.05 < 0.5 < curve[0].values["reconstruction"]
    data, space = problem().tasks, problem().space
    with torch.no_grad():
        for slot in ("text", "demonstrations"):
            for own, item in enumerate(data):
                vector = item.texts[0] if slot == "text" else item.demonstrations[0]
                c = model.read(space.support(**{"text": None, "demonstrations": None} | {slot: vector}))
                made = model.decode(model.sample_latent(c, None), c)[0]
                distances = [float((made - other.tokens[0]).norm()) for other in data]
                assert distances.index(min(distances)) == own


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_prior_share_takes_z_as_generation_does(share: float) -> None:
    data, space, mask = problem().tasks, problem().space, problem().mask
    recipe, model, tokens = varied(RECIPE, prior_share=share), network(), data[0].tokens
    support = Support.stack([space.support(text, None) for text in data[0].texts[:2]])
    objective = Objective(recipe.objective, mask, tokens.square().mean())
    batch = Batch(tokens, torch.tensor([0, 0]), torch.tensor([0, 1]), support)
    found = model.losses(batch, objective, TrainStep(0, 99, 100), seeded())
    parts = {name: float(item) for name, item in found.parts.items()}
    total = parts["reconstruction"] + recipe.objective.kl_weight * parts["kl"]
    if not share:
        assert set(parts) == {"reconstruction", "kl"} and float(found.total) == pytest.approx(total)
        return
    rng, c = seeded(), model.read(support)
    assert isinstance(model, CVAE)
    sample(model.encode(tokens, c), rng)
    made = model.decode(sample(model.prior(c), rng), c)
    wanted = float((made - tokens).square().mean() / tokens.square().mean())
    assert parts["from_prior"] == pytest.approx(wanted, rel=1e-4)
    assert float(found.total) == pytest.approx((1 - share) * total + share * wanted, rel=1e-4)


@pytest.mark.parametrize("arch", ["token", "conv1d", "p-diff"])
def test_resumed_equals_uninterrupted(tmp_path: Path, arch: str) -> None:
    whole = network(arch)
    undisturbed = train(whole, tmp_path / "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(network(arch), tmp_path / "state.safetensors", stop=77)
    resumed = network(arch)
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()  # whatever it starts from, the state decides
    assert train(resumed, tmp_path / "state.safetensors") == undisturbed
    for name, item in whole.state_dict().items():
        assert torch.equal(item, resumed.state_dict()[name]), name


HEAD = {"code_norm": True, "output_scale": True, "mean_adapter": True, "bounded": 1.0}


def test_resumed_equals_uninterrupted_with_all_options_of_the_head(tmp_path: Path) -> None:
    whole = network(**HEAD)
    undisturbed = train(whole, tmp_path / "whole.safetensors")
    tokens = torch.cat([item.tokens for item in problem().tasks])
    assert torch.equal(whole.state_dict()["mean"], tokens.mean(0))  # taken once, and not trained
    assert undisturbed[-1].values["reconstruction"] < undisturbed[0].values["reconstruction"]
    with pytest.raises(KeyboardInterrupt):
        train(network(**HEAD), tmp_path / "state.safetensors", stop=77)
    resumed = network(**HEAD)
    assert train(resumed, tmp_path / "state.safetensors") == undisturbed
    for name, item in whole.state_dict().items():
        assert torch.equal(item, resumed.state_dict()[name]), name


def test_a_stage_starts_with_fresh_moments_and_its_own_rate(tmp_path: Path) -> None:
    """By moments that small gradients left, the next stage's first step would move numbers by many times its rate."""
    recipe = varied(RECIPE, steps=2000, pretrain_steps=1000, pretrain_rate=1e-2, learning_rate=1e-4, save_every=1000)

    class Louder:
        """After the first stage, a gradient that is as large as clipping lets it be."""

        def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, torch.Tensor]:
            if train_step.stage:
                sum(1e3 * item.sum() for item in model.parameters()).backward()  # type: ignore[union-attr]
            return {}

    model = network()
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def on_step(losses: StepLosses) -> None:
        kept[losses.step] = {name: item.clone() for name, item in model.state_dict().items()}
        if losses.step == 1001:
            raise KeyboardInterrupt

    def moved(before: int) -> float:
        return max(float((kept[before + 1][name] - item).abs().max()) for name, item in kept[before].items())

    with pytest.raises(KeyboardInterrupt):
        options = FitOptions(tmp_path / "s", "k", on_step)
        fit(model, problem(), recipe.objective, recipe.optimiser, options, terms=[Louder()])
    rising = 1000 // 20
    assert moved(50) > 1e-4  # of the first stage, at its own rate
    assert 0 < moved(1000) <= 1.05 * 1e-4 / rising


def test_anothers_state_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(network(), tmp_path / "state.safetensors", stop=60)
    steps: list[int] = []
    options = FitOptions(tmp_path / "state.safetensors", "other", lambda losses: steps.append(losses.step))
    fit(network(), problem(), RECIPE.objective, RECIPE.optimiser, options)
    assert steps[0] == 1


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    data = problem()
    data.tasks[0].tokens[0, 0, 0, 0] = float("inf")
    with pytest.raises(TrainingDivergedError, match="step"):
        options = FitOptions(tmp_path / "s", "k", lambda losses: None)
        fit(network(), data, RECIPE.objective, RECIPE.optimiser, options)


def test_an_absent_slot_is_zero_and_flagged() -> None:
    space = problem().space
    c = pooled(space.support(torch.ones(HIDDEN), None))[0]
    assert c[:HIDDEN].any() and not c[HIDDEN : 2 * HIDDEN].any()
    assert c[-2:].tolist() == [1.0, 0.0]


def test_conditions_are_clamped() -> None:
    statistics = SlotStatistics(torch.zeros(4), torch.ones(4))
    assert statistics.apply(torch.full((4,), 1e9)).tolist() == [5.0] * 4


def weighted(data: TrainingData) -> TrainingData:
    """Return the data with errors that count nine times as much in the first half of the modules as in the others."""
    weights = torch.full((4, 3, 3), 0.2)
    weights[:2] = 1.8
    return replace(data, tasks=[replace(task, weights=weights) for task in data.tasks])


def test_errors_count_by_their_weights_and_predicting_zero_still_costs_one() -> None:
    data = weighted(problem())
    tokens = data.tokens()
    objective = ElboTerm.of(data, tokens, RECIPE.objective, 4, 1.0).objective
    weights = data.error_weights()
    assert weights is not None
    owners = torch.arange(3).repeat_interleave(2)
    support = Support.stack([data.space.support(data.tasks[0].texts[0], None)] * 6)
    batch = Batch(tokens, owners, torch.arange(6), support, weights)
    assert float(objective.reconstruction(torch.zeros_like(tokens), batch)) == pytest.approx(1.0)
    heavy, light = tokens.clone(), tokens.clone()
    heavy[:, 0, 0, 0] += 1.0
    light[:, 3, 0, 0] += 1.0
    ratio = objective.reconstruction(heavy, batch) / objective.reconstruction(light, batch)
    assert float(ratio) == pytest.approx(9.0, rel=1e-4)
    plain = replace(batch, weights=None)
    assert float(objective.reconstruction(heavy, plain)) == pytest.approx(
        float(objective.reconstruction(light, plain)), rel=1e-4
    )


def test_what_counts_more_is_learned_better(tmp_path: Path) -> None:
    """With a latent that is too narrow for everything, so that there is something to choose."""
    recipe = varied(RECIPE, steps=400, kl_weight=0.0)
    ratios = []
    for name, data in (("plain", problem(12)), ("weighted", weighted(problem(12)))):
        torch.manual_seed(0)
        model = build(NetworkConfig("token", PLACES, 3, HIDDEN, 3, 32, 8))
        assert isinstance(model, CVAE)
        fit(model, data, recipe.objective, recipe.optimiser, FitOptions(tmp_path / name, "k", lambda _: None))
        with torch.no_grad():
            tokens = data.tokens()
            texts = [data.space.support(task.texts[0], None) for task in data.tasks for _ in task.tokens]
            c = model.read(Support.stack(texts))
            squares = (model.decode(model.encode(tokens, c)[0], c) - tokens).square().mean((0, 2, 3))
        ratios.append(float(squares[:2].mean() / squares[2:].mean()))
    assert ratios[1] < 0.8 * ratios[0]


@pytest.mark.parametrize("arch", ["token", "p-diff"])
def test_a_watch_shows_in_the_curve_and_changes_nothing(tmp_path: Path, arch: str) -> None:
    recipe = varied(RECIPE, steps=50, save_every=20)

    def figures(model: Network) -> Mapping[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        c = model.read(problem().space.support(problem().tasks[0].texts[0], None))
        return {"norm": float(model.decode(model.sample_latent(c, None), c).norm()), "endless": float("inf")}

    def run(name: str, watch: Watch | None, stop: int | None = None) -> tuple[Network, Sequence[StepLosses]]:
        def on_step(losses: StepLosses) -> None:
            if losses.step == stop:
                raise KeyboardInterrupt

        model, options = network(arch), FitOptions(tmp_path / name, "k", on_step)
        return model, fit(model, problem(), recipe.objective, recipe.optimiser, options, watch=watch)

    watch = Watch(7, figures, from_stage=1 if arch == "p-diff" else 0)
    plain, bare = run("plain", None)
    watched, curve = run("watched", watch)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", watch, stop=33)
    resumed, again = run("stopped", watch)
    for other in (watched, resumed):
        assert all(torch.equal(item, other.state_dict()[name]) for name, item in plain.state_dict().items())
    first = 15 if arch == "p-diff" else 0
    assert [losses.step for losses in curve if "norm" in losses.values] == [
        step for step in (7, 14, 21, 28, 35, 42, 49, 50) if step > first
    ]
    assert again == curve and not any("endless" in losses.values for losses in curve)
    known = {losses.step: losses.values for losses in curve}
    assert all(dict(losses.values).items() <= dict(known[losses.step]).items() for losses in bare)
