"""COND P-DIFF: conditions decide, seeds repeat, stages resume exactly, and the saved generator has no encoder."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.generator.checkpoint import WEIGHTS, Generator, load_generator, module_scales, save_generator
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.diffusion import SAMPLING_STEPS, TIMES, PDiff
from icmlora_cli.generator.fit import FitOptions, StepLosses, fit
from icmlora_cli.generator.interface import NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.terms import TaskData, TrainingData
from icmlora_cli.manifests.generator import GeneratorAbout, GeneratorBase
from icmlora_cli.weights.adapter import Adapter, Factors, read_safetensors
from icmlora_cli.weights.codec import Codec, fit_codec
from tests.train_recipes import train_recipe, varied

ABOUT = GeneratorAbout(key="kept", base=GeneratorBase(name="tiny", weight_hash="w" * 64), tasks={})
HIDDEN, RANK = 8, 2
SHORT = train_recipe(
    arch="p-diff", steps=60, autoencoder_share=0.5, batch_size=4, latent_dim=4, hidden_dim=16, save_every=10
)
LONG = varied(SHORT, steps=900, learning_rate=3e-3, batch_size=8, hidden_dim=64, save_every=5000)


class Problem:
    """Two tasks with adapters that have nothing in common, and texts that are far apart."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(3)
        self.adapters = [self._adapter(rng) for _ in range(2)]
        self.codec: Codec = fit_codec(self.adapters, energy=1.0)
        raw = [self.codec.encode(adapter)[None] for adapter in self.adapters]
        self.mask = self.codec.mask()
        self.scale = module_scales(torch.cat(raw), self.mask)
        self.data = [self._task(tokens / self.scale[:, None, None], rng) for tokens in raw]
        self.space = ConditionSpace(
            SlotStatistics.of(torch.cat([item.texts for item in self.data])),
            SlotStatistics.of(torch.cat([item.demonstrations for item in self.data])),
        )

    @staticmethod
    def _adapter(rng: torch.Generator) -> Adapter:
        factors = {
            f"layers.{index}.q_proj": Factors(torch.randn(RANK, 6, generator=rng), torch.randn(5, RANK, generator=rng))
            for index in range(3)
        }
        return Adapter("tiny", float(RANK), factors)

    @staticmethod
    def _task(tokens: torch.Tensor, rng: torch.Generator) -> TaskData:
        centre = torch.randn(2, 1, HIDDEN, generator=rng)
        near = centre + 0.1 * torch.randn(2, 3, HIDDEN, generator=rng)
        return TaskData(tokens, near[0], near[1])

    def network(self, recipe: TrainRecipe) -> PDiff:
        torch.manual_seed(recipe.seed)
        model = build(
            NetworkConfig(
                "p-diff", tuple((index, 0) for index in range(len(self.mask))), self.codec.width, self.space.hidden,
                recipe.network.latent_dim,
                recipe.network.hidden_dim, recipe.network.code_dim,
            )
        )  # fmt: skip
        assert isinstance(model, PDiff)
        return model

    def train(self, model: PDiff, state: Path, recipe: TrainRecipe, stop: int | None = None) -> Sequence[StepLosses]:
        def on_step(losses: StepLosses) -> None:
            if losses.step == stop:
                raise KeyboardInterrupt

        return self.fit(model, recipe, FitOptions(state, "k", on_step, recipe.seed))

    def fit(self, model: PDiff, recipe: TrainRecipe, options: FitOptions) -> Sequence[StepLosses]:
        data = TrainingData(self.data, self.space, self.mask, recipe.data.condition_noise)
        return fit(model, data, recipe.objective, recipe.optimiser, options)

    def generator(self, model: PDiff) -> Generator:
        return Generator(model.eval(), self.codec, self.space, self.scale, RANK)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem()


@pytest.fixture(scope="module")
def trained(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, Sequence[StepLosses]]:
    model = problem.network(LONG)
    curve = problem.train(model, tmp_path_factory.mktemp("long") / "s", LONG)
    return problem.generator(model), curve


def distance(adapter: Adapter, other: Adapter) -> float:
    """Return ||difference of delta-W|| / ||other's delta-W||."""
    missed = sum(float((adapter.delta(name) - other.delta(name)).square().sum()) for name in other.factors)
    return (missed / sum(float(other.delta(name).square().sum()) for name in other.factors)) ** 0.5


def same(first: Adapter, second: Adapter) -> bool:
    return all(torch.equal(first.delta(name), second.delta(name)) for name in first.factors)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("slot", ["text", "demonstrations"])
def test_a_condition_gives_its_own_tasks_adapter(
    problem: Problem, trained: tuple[Generator, Sequence[StepLosses]], slot: str, seed: int | None
) -> None:
    generator, _ = trained
    for own, item in enumerate(problem.data):
        given = (item.texts[0], None) if slot == "text" else (None, item.demonstrations[0])
        made = generator.generate(*given, seed=seed)  # the other task's condition is the swap
        assert distance(made, problem.adapters[own]) < 0.25
        assert distance(made, problem.adapters[1 - own]) > 0.8


def test_each_stage_has_its_loss_and_learns(trained: tuple[Generator, Sequence[StepLosses]]) -> None:
    _, curve = trained
    autoencoder = [losses.values["reconstruction"] for losses in curve if losses.step <= LONG.optimiser.steps / 2]
    diffusion = [losses.values["diffusion"] for losses in curve if losses.step > LONG.optimiser.steps / 2]
    assert len(autoencoder) == len(diffusion) == LONG.optimiser.steps / 20
    assert autoencoder[-1] < 0.1 * autoencoder[0] and sum(diffusion[-5:]) < 0.5 * sum(diffusion[:5])


def test_the_same_seed_gives_the_same_adapter(
    problem: Problem, trained: tuple[Generator, Sequence[StepLosses]]
) -> None:
    generator, _ = trained
    text = problem.data[0].texts[1]
    assert same(generator.generate(text, None, seed=3), generator.generate(text, None, seed=3))
    assert not same(generator.generate(text, None, seed=3), generator.generate(text, None, seed=4))
    assert same(generator.generate(text, None), generator.generate(text, None, seed=0))


def test_latents_are_standardised_between_the_stages(
    problem: Problem, trained: tuple[Generator, Sequence[StepLosses]]
) -> None:
    model = trained[0].model
    assert isinstance(model, PDiff)
    assert torch.allclose(model.latents.mean(0), torch.zeros(LONG.network.latent_dim), atol=1e-2)
    deviations = model.latents.std(0, correction=0)
    living = model.latent_std > 1e-4  # the others do not differ between the adapters
    assert living.any() and torch.allclose(deviations[living], torch.ones(int(living.sum())), atol=1e-2)
    signal = model.denoiser.signal  # at the last time hardly any is left
    assert float(signal[-1]) < 1e-4 and len(signal) == TIMES > SAMPLING_STEPS


@pytest.mark.parametrize("stop", [17, 30, 31, 44])  # before the switch at 30, at it, just after, later
def test_killed_and_resumed_equals_uninterrupted(problem: Problem, tmp_path: Path, stop: int) -> None:
    whole = problem.network(SHORT)
    undisturbed = problem.train(whole, tmp_path / "whole", SHORT)
    with pytest.raises(KeyboardInterrupt):
        problem.train(problem.network(SHORT), tmp_path / "state", SHORT, stop=stop)
    resumed = problem.network(varied(SHORT, seed=9))  # whatever it starts from, the state decides
    steps: list[int] = []
    options = FitOptions(tmp_path / "state", "k", lambda losses: steps.append(losses.step), SHORT.seed)
    assert problem.fit(resumed, SHORT, options) == undisturbed
    assert steps[0] == (stop - 1) // 10 * 10 + 1  # saved every 10 steps, before which the callback stops it
    wanted, got = whole.state_dict(), resumed.state_dict()
    assert wanted.keys() == got.keys()
    assert [name for name, item in wanted.items() if not torch.equal(item, got[name])] == []


def test_the_diffusion_leaves_the_autoencoder_as_it_is(problem: Problem, tmp_path: Path) -> None:
    model = problem.network(SHORT)
    before: dict[str, torch.Tensor] = {}

    def on_step(losses: StepLosses) -> None:
        if losses.step == SHORT.optimiser.steps / 2:
            before.update({name: item.clone() for name, item in model.state_dict().items()})

    recipe = varied(SHORT, weight_decay=0.1)
    problem.fit(model, recipe, FitOptions(tmp_path / "s", "k", on_step))
    changed = {name.split(".")[0] for name, item in model.state_dict().items() if not torch.equal(item, before[name])}
    assert changed == {"denoiser", "latent_mean", "latent_std"}


def test_a_saved_generator_has_no_encoder_and_generates_the_same(
    problem: Problem, trained: tuple[Generator, Sequence[StepLosses]], tmp_path: Path
) -> None:
    generator, _ = trained
    save_generator(tmp_path, generator, about=ABOUT)
    names = read_safetensors(tmp_path / WEIGHTS)
    assert {name.split(".")[1] for name in names if name.startswith("model.")} == {
        "decoder", "denoiser", "latent_mean", "latent_std",
    }  # fmt: skip
    loaded = load_generator(tmp_path)
    text = problem.data[1].texts[2]
    assert same(loaded.generate(text, None, seed=5), generator.generate(text, None, seed=5))


@pytest.mark.parametrize("stage", [0, 1])
def test_a_loss_that_is_not_finite_stops_it(problem: Problem, tmp_path: Path, stage: int) -> None:
    model = problem.network(SHORT)
    broken = model.encoder if stage == 0 else model.denoiser
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    first = SHORT.optimiser.steps // 2 * stage + 1
    with pytest.raises(TrainingDivergedError, match=f"not finite at step {first}$"):
        problem.train(model, tmp_path / "s", SHORT)
