"""Train, with episodes, on a tiny Llama: with and without adapters, in every basis, repeatable and resumable."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import TrainRecipe, VectorRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError, TrainingDivergedError, UsageError
from icmlora_cli.generator.checkpoint import WEIGHTS, Generator, load_generator
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.methods.generated import generate_adapter
from icmlora_cli.registry.adapters import SENSITIVITY, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.frame import FrameSpec
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.train import train, training
from icmlora_cli.workflows.train.episode_tasks import builtin_pool
from tests.small_registry import flip
from tests.train_recipes import train_recipe, varied

STARTS_INFINITE = ("extra.best_score", "extra.plateau")  # the lowest losses, before there are any

EPISODES = EpisodeRecipe(
    rows=4, builtin="catalog", per_family=1, builtin_examples=6, phrasings=0, contrast_tasks=4, max_tokens=120,
    validation_tasks=2, validation_examples=3, validate_every=3,
    builtin_exclude=("*words*", "*digits*", "*sentence*", "*roman*", "*date*", "*minutes*", "*meters*"),
)  # fmt: skip
RECIPE = train_recipe(
    latent_dim=4, hidden_dim=24, code_dim=12, reader="attention", reader_dim=16, condition_dim=16, frame_width=4,
    token_dropout=0.1, steps=17, batch_size=4, save_every=4, learning_rate=1e-2,
    vectors=VectorRecipe(layer=0.5, pooling="tokens", shots=2, draws=2), episodes=EPISODES,
)  # fmt: skip
FRAME = HarvestRecipe(
    parametrization="frame", rank=4, steps=20, batch_size=6, learning_rate=3e-2, keep=2, keep_every=2, seed=5
)
LORA = FRAME.model_copy(update={"parametrization": "lora", "rank": 2})


def changed(recipe: TrainRecipe, **values: object) -> TrainRecipe:
    """Return a recipe with other values for its episodes."""
    assert recipe.episodes is not None
    return varied(recipe, episodes=recipe.episodes.model_copy(update=values))


ALONE = changed(RECIPE, builtin="none", validation_tasks=0)  # the user's tasks and nothing else


def weights(home: Home, name: str = "default") -> bytes:
    return (home.generators / name / WEIGHTS).read_bytes()


def curve(generator: Generator) -> list[tuple[int, dict[str, float]]]:
    return [(row[0], dict(row[1])) for row in generator.manifest.curve if len(row) == 2]


def difference(one: Adapter, two: Adapter) -> float:
    return max(float((one.delta(name) - two.delta(name)).abs().max()) for name in one.factors)


def test_without_any_adapter(llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path) -> None:
    result = train.run(say_tasks, llama_base, RECIPE, home, device="cpu")
    builtin, _ = builtin_pool(EPISODES, RECIPE.seed)
    assert result.trained and result.harvested == 0 and result.builtin == len(builtin) > 5
    assert result.tasks == tuple(task.name for task in say_tasks)
    assert result.width == RECIPE.data.frame_width and result.validation is not None and result.validation > 0
    assert not any(name.startswith("codec.") for name in load_file(result.folder / WEIGHTS))
    assert not list(home.generators.glob("*.safetensors"))  # the state is gone
    generator = load_generator(result.folder)
    assert generator.frame == FrameSpec(RECIPE.data.frame_seed, RECIPE.data.frame_width)
    assert all({"nll", "exact", "prior", "contrast"} <= set(values) for _, values in curve(generator))
    again = train.run(say_tasks, llama_base, RECIPE, home, device="cpu")
    assert not again.trained and again.validation == result.validation and again.bytes == result.bytes
    made = generate.run(
        "Always answer with cat.", tmp_path / "out", GenRequest(result.folder), llama_base, home, device="cpu"
    )
    adapter = read_adapter(made.folder)
    assert adapter.rank == RECIPE.data.frame_width
    assert all(torch.isfinite(adapter.delta(name)).all() and adapter.delta(name).any() for name in adapter.factors)


def test_it_generates_from_text_from_examples_and_from_both(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    result = train.run(say_tasks, llama_base, ALONE, home, device="cpu")
    generator = load_generator(result.folder)
    reader = VectorReader(load_base(llama_base, device="cpu"), generate.vector_recipe(generator), home)
    shots = say_tasks[0].examples("train")[:3]
    text = "Always answer with cat."
    made = [
        generate_adapter(generator, reader, text),
        generate_adapter(generator, reader, text, shots),
        generate_adapter(generator, reader, None, shots),
        generate_adapter(generator, reader, "Write owl."),
        generate_adapter(generator, reader, text, seed=3),
    ]
    assert all(torch.isfinite(item.delta(name)).all() for item in made for name in item.factors)
    assert all(difference(one, two) > 0 for at, one in enumerate(made) for two in made[:at])
    assert difference(made[1], generate_adapter(generator, reader, text, shots)) == 0


def test_it_learns_to_serve_its_tasks_on_examples_that_it_has_not_seen(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    modules = ("q_proj", "v_proj", "o_proj", "down_proj")
    more = {"steps": 120, "frame_width": 16, "core_scale": 1.0, "hidden_dim": 48, "target_modules": modules}
    recipe = varied(changed(ALONE, rows=9, contrast_weight=0.3), **more)
    generator = load_generator(train.run(say_tasks, llama_base, recipe, home, device="cpu").folder)
    loaded = load_base(llama_base, device="cpu")
    reader = VectorReader(loaded, recipe.data.vectors, home)
    for task in say_tasks:
        rows = encode_task(loaded.family, task, task.examples("test"))
        base = score_rows(loaded, rows).mean_nll
        with merged(loaded.model, generate_adapter(generator, reader, task.descriptions[0])):
            assert score_rows(loaded, rows).mean_nll < base - 0.2


def test_built_in_tasks_alone_suffice(llama_base: Base, home: Home, tmp_path: Path) -> None:
    result = train.run((), llama_base, RECIPE, home, device="cpu")
    assert result.tasks == () and result.harvested == 0 and result.builtin > 5
    generate.run("Write it in capitals.", tmp_path / "out", GenRequest(result.folder), llama_base, home, device="cpu")
    with pytest.raises(UsageError, match="no task"):
        train.run((), llama_base, ALONE, home, device="cpu")


def test_episodes_beside_adapters_that_were_harvested_in_a_frame(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    harvest.run(say_tasks[:2], llama_base, FRAME, home, device="cpu")
    recipe = varied(RECIPE, pretrain_steps=10, steps=30)
    result = train.run(say_tasks, llama_base, recipe, home, device="cpu")
    assert result.harvested == 2 and len(result.tasks) == 3
    assert result.codec_error < 1e-3 and result.error < 1.5
    generator = load_generator(result.folder)
    assert generator.frame == FrameSpec(FRAME.seed, FRAME.rank) and generator.rank == FRAME.rank
    assert not any(name.startswith("codec.") for name in load_file(result.folder / WEIGHTS))
    losses = curve(generator)
    assert all({"reconstruction", "kl", "contrast"} <= set(values) for _, values in losses)
    assert {step > 10 for step, values in losses if "nll" in values} == {True}
    assert {step > 10 for step, values in losses if "validation" in values} == {True}
    assert "nll" not in dict(losses)[10]


def test_without_weight_adapters_are_not_learned_beside_episodes(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    harvest.run(say_tasks[:1], llama_base, FRAME, home, device="cpu")
    recipe = varied(RECIPE, pretrain_steps=10, steps=20, elbo_weight=0.0)
    losses = curve(load_generator(train.run(say_tasks, llama_base, recipe, home, device="cpu").folder))
    assert "reconstruction" in dict(losses)[10] and "reconstruction" not in dict(losses)[20]


def test_without_queries_adapters_alone_are_learned_beside_the_contrast_of_readings(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    recipe = changed(RECIPE, weight=0.0)
    with pytest.raises(UsageError, match="nothing to learn"):
        train.run(say_tasks, llama_base, recipe, home, device="cpu")
    harvest.run(say_tasks[:2], llama_base, FRAME, home, device="cpu")
    result = train.run(say_tasks, llama_base, recipe, home, device="cpu")
    assert result.validation is None
    assert [step for step, values in curve(load_generator(result.folder)) if "cosine" in values] == [
        3,
        6,
        9,
        12,
        15,
        17,  # every validate_every steps, and the last
    ]
    for _, values in curve(load_generator(result.folder)):
        assert set(values) - {"cosine"} == {"reconstruction", "kl", "contrast"}


def test_of_plain_loras_the_basis_is_learned_and_kept(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    harvest.run(say_tasks[:2], llama_base, LORA, home, device="cpu")
    result = train.run(say_tasks, llama_base, RECIPE, home, device="cpu")
    generator = load_generator(result.folder)
    assert generator.frame is None
    assert generator.rank == result.width > LORA.rank  # what went through the base is written whole
    stored = {name for name in load_file(result.folder / WEIGHTS) if name.startswith("codec.")}
    assert len(stored) == 2 * len(generator.codec.layout.modules)
    assert result.codec_error < 0.1


def test_of_a_mixture_the_basis_is_learned_or_the_frame_with_directions(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    harvest.run(say_tasks[:1], llama_base, FRAME, home, device="cpu")
    harvest.run(say_tasks[1:2], llama_base, LORA, home, device="cpu")
    auto = load_generator(train.run(say_tasks, llama_base, RECIPE, home, name="auto", device="cpu").folder)
    assert auto.frame is None
    framed = varied(RECIPE, basis="frame", frame_seed=FRAME.seed, frame_width=FRAME.rank)
    errors = {}
    for directions in (0, 4):
        recipe = varied(framed, directions=directions)
        result = train.run(say_tasks, llama_base, recipe, home, name=f"d{directions}", device="cpu")
        generator = load_generator(result.folder)
        assert generator.frame == FrameSpec(FRAME.seed, FRAME.rank)
        assert result.width == generator.codec.width == FRAME.rank + directions
        stored = {name for name in load_file(result.folder / WEIGHTS) if name.startswith("codec.")}
        assert bool(stored) == bool(directions)
        errors[directions] = result.codec_error
    assert errors[4] < 0.05 < 0.3 < errors[0]


def test_a_frame_covers_the_modules_of_the_adapters(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    """Adapters say which modules there are; the recipe's target_modules is for where there are none."""
    wanted = FRAME.model_copy(update={"target_modules": ("k_proj", "o_proj")})
    harvest.run(say_tasks[:2], llama_base, wanted, home, device="cpu")
    generator = load_generator(train.run(say_tasks, llama_base, RECIPE, home, device="cpu").folder)
    assert {item.kind for item in generator.codec.layout.modules} == {"k_proj", "o_proj"}
    alone = varied(RECIPE, target_modules=("up_proj",))
    other = load_generator(train.run((), llama_base, alone, home, name="other", device="cpu").folder)
    assert {item.kind for item in other.codec.layout.modules} == {"up_proj"}


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_the_storage_and_its_cost_are_told(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], storage: str
) -> None:
    plain = train.run(say_tasks, llama_base, ALONE, home, name="fp32", device="cpu")
    recipe = varied(ALONE, storage=storage)
    result = train.run(say_tasks, llama_base, recipe, home, name=storage, device="cpu")
    assert plain.storage_error == 0.0 < result.storage_error < 0.1
    assert result.bytes < 0.75 * plain.bytes


@pytest.mark.parametrize("reader", ["mean", "attention"])
def test_the_same_seed_gives_the_same_bytes(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], reader: str
) -> None:
    vectors = RECIPE.data.vectors.model_copy(update={"pooling": "mean"}) if reader == "mean" else RECIPE.data.vectors
    recipe = varied(RECIPE, reader=reader, vectors=vectors)
    train.run(say_tasks, llama_base, recipe, home, name="one", device="cpu")
    train.run(say_tasks, llama_base, recipe, home, name="two", device="cpu")
    other = varied(recipe, seed=1)
    train.run(say_tasks, llama_base, other, home, name="three", device="cpu")
    assert weights(home, "one") == weights(home, "two") != weights(home, "three")


def test_the_best_weights_by_validation_are_kept(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    recipe = varied(changed(RECIPE, validate_every=2), learning_rate=0.1)
    result = train.run(say_tasks, llama_base, recipe, home, device="cpu")
    scores = [values["validation"] for _, values in curve(load_generator(result.folder)) if "validation" in values]
    assert len(scores) == recipe.optimiser.steps // 2 + 1  # every second step, and the last
    assert result.validation == pytest.approx(max(scores), rel=1e-3)
    assert max(scores) > scores[-1]  # or the last weights would do as well


def stopper(at: int, seen: list[int]) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.stage == "train":
            seen.append(progress.done)
            if progress.done == at:
                raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("seed", range(3))
def test_stopped_at_random_steps_it_ends_with_the_same_bytes(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], seed: int
) -> None:
    harvest.run(say_tasks[:1], llama_base, FRAME, home, device="cpu")
    recipe = varied(RECIPE, pretrain_steps=5, steps=25)
    train.run(say_tasks, llama_base, recipe, home, name="whole", device="cpu")
    moments = random.Random(seed)
    first, state = 1, home.generators / f"broken{training.STATE}"
    for at in (moments.randint(1, 12), moments.randint(12, 25)):
        seen: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            train.run(say_tasks, llama_base, recipe, home, name="broken", device="cpu", on_progress=stopper(at, seen))
        assert seen[0] == first and seen[-1] == at  # it goes on where it was saved last
        first = (at - 1) // recipe.optimiser.save_every * recipe.optimiser.save_every + 1
        assert state.is_file() == (first > 1) and not (home.generators / "broken").exists()
    with safe_open(state, framework="pt") as saved:
        kept = list(saved.keys())
        assert "extra.source" in kept and "extra.best_score" in kept
        if first > 9:  # validated at step 9, within the stage of episodes
            assert any(name.startswith("extra.best.heads") for name in kept)
    seen = []
    train.run(say_tasks, llama_base, recipe, home, name="broken", device="cpu", on_progress=stopper(0, seen))
    assert seen == list(range(first, 26))
    assert weights(home, "broken") == weights(home, "whole") and not state.exists()


def test_a_diverged_training_keeps_its_last_state_and_says_what_to_do(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    absurd = varied(ALONE, learning_rate=1e25, save_every=1)
    with pytest.raises(TrainingDivergedError, match="not finite at step") as caught:
        train.run(say_tasks, llama_base, absurd, home, device="cpu")
    assert caught.value.hint is not None and "learning_rate" in caught.value.hint
    assert not (home.generators / "default").exists()
    with safe_open(home.generators / f"default{training.STATE}", framework="pt") as saved:
        assert int(saved.metadata()["step"]) >= 1
        for name in saved.keys():  # noqa: SIM118
            assert torch.isfinite(saved.get_tensor(name).float()).all() or name in STARTS_INFINITE, name
    assert train.run(say_tasks, llama_base, ALONE, home, device="cpu").trained  # another recipe starts afresh


def test_a_generator_that_is_not_finite_after_the_last_step_is_not_written(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    last = varied(ALONE, learning_rate=1e36, steps=1, pretrain_steps=0)  # the only loss is that of the first weights
    with pytest.raises(TrainingDivergedError, match="and nothing is written") as caught:
        train.run(say_tasks, llama_base, last, home, device="cpu")
    assert caught.value.where == str(home.generators / "default")
    assert caught.value.hint is not None and "learning_rate" in caught.value.hint
    assert not (home.generators / "default").exists()


ALL = varied(
    changed(RECIPE, swap_weight=0.5, distill_weight=0.5, distill_examples=5),
    sensitivity=0.5,
    pretrain_steps=5,
    steps=25,
)


def test_all_terms_together_are_told_and_resumed_with_the_same_bytes(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    harvest.run(say_tasks[:2], llama_base, FRAME, home, device="cpu")
    details: list[str] = []

    def note(progress: Progress) -> None:
        if progress.stage == "train":
            details.append(progress.detail)

    result = train.run(say_tasks, llama_base, ALL, home, name="whole", device="cpu", on_progress=note)
    assert len(list((home.vectors / "teachers").iterdir())) == 2
    whole = curve(load_generator(result.folder))
    assert {step > 5 for step, values in whole if "distill" in values} == {True}
    assert {step > 5 for step, values in whole if "swap" in values} == {True}
    watched = {"cosine", "own_nll", "swapped_nll"}
    assert [step for step, values in whole if watched <= set(values)] == [3, 6, 9, 12, 15, 18, 21, 24, 25]
    assert all(name in details[2] and name in details[3] for name in watched)  # the last look stays in sight
    assert not any(name in details[0] for name in watched)
    with pytest.raises(KeyboardInterrupt):
        train.run(say_tasks, llama_base, ALL, home, name="broken", device="cpu", on_progress=stopper(15, []))
    seen: list[int] = []
    again = train.run(say_tasks, llama_base, ALL, home, name="broken", device="cpu", on_progress=stopper(0, seen))
    assert seen[0] == 13 and weights(home, "broken") == weights(home, "whole")
    assert curve(load_generator(again.folder)) == whole


@pytest.mark.parametrize("values", [{"swap_weight": 0.5}, {"distill_weight": 0.5}, {"sensitivity": 0.5}])
def test_each_term_alone_makes_another_generator(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], values: dict[str, float]
) -> None:
    harvest.run(say_tasks[:2], llama_base, FRAME, home, device="cpu")
    recipe = varied(RECIPE, **values) if "sensitivity" in values else changed(RECIPE, **values)
    one = train.run(say_tasks, llama_base, RECIPE, home, name="plain", device="cpu")
    two = train.run(say_tasks, llama_base, recipe, home, name="other", device="cpu")
    assert weights(home, "plain") != weights(home, "other")
    assert load_generator(one.folder).manifest.key != load_generator(two.folder).manifest.key


def test_settings_that_are_newer_than_a_key_leave_it_as_it_was(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    found = train._key(say_tasks, [], llama_base, RECIPE, home)
    values = RECIPE.flat()
    episodes = values.pop("episodes")
    assert isinstance(episodes, dict)
    values.pop("save_every")
    newer = {"sensitivity", "swap_weight", "swap_margin", "distill_weight", "distill_examples"}
    assert newer.isdisjoint(values) and newer.isdisjoint(episodes)
    assert varied(RECIPE, sensitivity=0.5).flat()["sensitivity"] == 0.5
    items = [[task.name, *task.descriptions, task.data_hash] for task in say_tasks] + [[llama_base.weight_hash]]
    pools = builtin_pool(EPISODES, RECIPE.seed, {task.name for task in say_tasks})
    items += [[task.name for task in pool] for pool in pools] + [[item] for item in llama_base.encoding]
    assert found == files.sha256_json([train.VERSION, values | {"episodes": episodes}, items])[:16]


def test_sensitivity_needs_recorded_gradients_in_one_frame(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    recipe, store = varied(RECIPE, sensitivity=1.0), AdapterStore(home)

    def refused(match: str, hint: str) -> None:
        with pytest.raises(UsageError, match=match) as caught:
            train.run(say_tasks, llama_base, recipe, home, device="cpu")
        assert caught.value.hint is not None and hint in caught.value.hint

    refused("there is none", "icmlora harvest")
    (lora,) = harvest.run(say_tasks[1:2], llama_base, LORA, home, device="cpu").records
    assert lora.sensitivity is None
    refused("plain LoRA", "harvest/frame")
    store.remove(lora.task)
    other = FRAME.model_copy(update={"seed": 6})
    harvest.run(say_tasks[:1], llama_base, FRAME, home, device="cpu")
    harvest.run(say_tasks[1:2], llama_base, other, home, device="cpu")
    refused("the basis is another", "data.basis: frame")
    store.remove(lora.task)
    (record,) = harvest.run(say_tasks[1:2], llama_base, FRAME, home, device="cpu").records
    store.record(replace(record, sensitivity=None))  # as earlier versions recorded it
    refused("did not record", f"icmlora adapter remove {record.task} --key {record.key} --yes && icmlora harvest")
    store.record(record)
    assert train.run(say_tasks, llama_base, recipe, home, device="cpu").trained
    flip(record.folder / SENSITIVITY)
    with pytest.raises(CorruptFileError, match="sensitivity of the adapter"):
        train.run(say_tasks, llama_base, varied(recipe, seed=1), home, device="cpu")


def test_distillation_needs_an_adapter_of_a_task_with_questions(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    with pytest.raises(UsageError, match="to distil") as caught:
        train.run(say_tasks, llama_base, changed(RECIPE, distill_weight=1.0), home, device="cpu")
    assert caught.value.hint is not None and "icmlora harvest" in caught.value.hint
    harvest.run(say_tasks[:1], llama_base, FRAME, home, device="cpu")
    for name in ("distill_weight", "swap_weight"):
        with pytest.raises(UsageError, match=name):
            train.run(say_tasks, llama_base, changed(RECIPE, weight=0.0, **{name: 1.0}), home, device="cpu")


FAULTS = (
    ({"arch": "p-diff"}, "p-diff has no episodes"),
    ({"pretrain_steps": 17}, "leaves none for episodes"),
    ({"reader": "mean"}, "reader: mean"),
    ({"basis": "learned"}, "needs harvested adapters"),
    ({"epochs": 3}, "epochs counts passes over harvested adapters"),
    ({"patience": 3}, "patience counts epochs"),
)


@pytest.mark.parametrize(("values", "message"), FAULTS)
def test_recipes_that_do_not_fit_together_are_refused(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], values: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train.run(say_tasks, llama_base, varied(RECIPE, **values), home, device="cpu")
    assert caught.value.hint
    assert not (home.generators / "default").exists()


def test_an_unseen_task_is_not_drawn_from(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    rows = [{"input": f"item {index}", "output": "elk"} for index in range(20)]
    spec = TaskSpec.model_validate({"name": "say_elk", "description": "Say elk.", "examples": rows, "split": "unseen"})
    task, _ = TaskStore(home).add(spec, [Example(**row) for row in rows])
    with pytest.raises(UsageError, match="say_elk"):
        train.run((*say_tasks, task), llama_base, RECIPE, home, device="cpu")


def builtin_copy(home: Home, split: str) -> Task:
    """Register a copy of a built-in task that episodes draw from, as ``task add builtin:NAME`` does."""
    builtin = builtin_pool(EPISODES, RECIPE.seed)[0][0]
    spec = {
        "name": builtin.name, "descriptions": list(builtin.descriptions), "split": split,
        "examples": [{"input": item.input, "output": item.output} for item in builtin.examples(40, 0)],
    }  # fmt: skip
    return TaskStore(home).add(TaskSpec.model_validate(spec), builtin.examples(40, 0))[0]


@pytest.mark.parametrize("split", ["train", "unseen"])
def test_a_built_in_task_that_is_registered_is_not_drawn_as_a_built_in_one(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], split: str
) -> None:
    """Else the built-in one would teach what the registered one keeps for its tests, or all of an unseen task."""
    task = builtin_copy(home, split)
    tasks = (*say_tasks, task) if split == "train" else say_tasks
    result = train.run(tasks, llama_base, RECIPE, home, device="cpu")
    drawn = load_generator(result.folder).manifest.builtin_tasks
    assert drawn is not None and len(drawn) == result.builtin > 5
    assert task.name not in drawn and (task.name in result.tasks) == (split == "train")


def test_a_built_in_task_that_is_registered_later_is_learned_no_longer(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    drawn = []
    for _ in range(2):
        result = train.run(say_tasks, llama_base, RECIPE, home, device="cpu")
        assert result.trained
        drawn.append(load_generator(result.folder).manifest.builtin_tasks)
        task = builtin_copy(home, "unseen")
    assert task.name in drawn[0] and task.name not in drawn[1]  # type: ignore[operator]


def test_another_base_is_another_training(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tiny_bases: dict[str, Path]
) -> None:
    """Without adapters, nothing but the base itself tells them apart."""
    assert train.run(say_tasks, llama_base, ALONE, home, device="cpu").trained
    qwen = pull(str(tiny_bases["qwen3"]), home, offline=True)
    result = train.run(say_tasks, qwen, ALONE, home, device="cpu")
    assert result.trained
    about = files.read_json(result.folder / "generator.json")["base"]
    assert isinstance(about, dict) and about["weight_hash"] == qwen.weight_hash


def test_other_examples_are_another_training_of_adapters_too(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    """Demonstrations are read from them, and an imported adapter stays the newest whatever they are."""
    recipe = varied(RECIPE, episodes=None)
    harvest.run(say_tasks, llama_base, FRAME.model_copy(update={"steps": 2}), home, device="cpu")
    keys = [train.key_of(say_tasks, llama_base, recipe, home) for _ in range(2)]
    record = AdapterStore(home).latest(llama_base, say_tasks[0])
    other = replace(say_tasks[0], data_hash="0" * 64)
    same = [(task, AdapterStore(home).latest(llama_base, task)) for task in say_tasks[1:]]
    keys += [
        train._key((task, *say_tasks[1:]), [(task, record), *same], llama_base, recipe, home)
        for task in (say_tasks[0], other)
    ]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_options_of_the_head_are_another_training_and_have_their_limits(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    recipe = varied(RECIPE, episodes=None, steps=3)
    with_mean = varied(RECIPE, mean_adapter=True)
    with pytest.raises(UsageError, match="mean of harvested adapters, and there is none"):
        train.run(say_tasks, llama_base, with_mean, home, device="cpu")
    harvest.run(say_tasks, llama_base, FRAME.model_copy(update={"steps": 2}), home, device="cpu")
    head = {"code_norm": True, "output_scale": True, "mean_adapter": True, "bounded": 0.0}
    recipes = [recipe, *(varied(recipe, **{name: value}) for name, value in head.items())]
    assert len({train.key_of(say_tasks, llama_base, item, home) for item in recipes}) == len(recipes)
    for name, value in head.items():
        with pytest.raises(UsageError, match=f"{name} is an option of arch: token"):
            train.run(say_tasks, llama_base, varied(recipe, arch="conv1d", **{name: value}), home, device="cpu")
    made = train.run(say_tasks, llama_base, varied(recipe, **head), home, device="cpu")
    generator = load_generator(made.folder)
    assert generator.model.config.bounded == 0.0 and generator.model.state_dict()["mean"].any()


def test_other_examples_are_another_training(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    train.run(say_tasks, llama_base, ALONE, home, device="cpu")
    rows = [{"input": f"thing {index}", "output": "cat"} for index in range(40)]
    spec = TaskSpec.model_validate(
        {"name": say_tasks[0].name, "descriptions": list(say_tasks[0].descriptions), "examples": rows}
    )
    changed_task, _ = TaskStore(home).add(spec, [Example(**row) for row in rows], replace=True)
    assert train.run((changed_task, *say_tasks[1:]), llama_base, ALONE, home, device="cpu").trained


def test_a_task_with_a_single_training_example(llama_base: Base, home: Home) -> None:
    rows = [{"input": f"w4 {index}", "output": "cat"} for index in range(2)]  # one to train on, one to test on
    spec = TaskSpec.model_validate({"name": "few", "description": "Say cat.", "examples": rows})
    task, _ = TaskStore(home).add(spec, [Example(**row) for row in rows])
    assert len(task.examples("train")) == 1
    assert train.run((task,), llama_base, ALONE, home, device="cpu").trained


def passages(home: Home) -> Task:
    rows = [{"text": f"passage {index} of plain text, " * 5} for index in range(12)]
    spec = TaskSpec.model_validate(
        {"name": "prose", "description": "Write plain text.", "examples": rows, "template": "text"}
    )
    return TaskStore(home).add(spec, [Example("", row["text"]) for row in rows])[0]


def test_a_task_of_plain_text_is_learned_from_its_adapter_alone(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    task = passages(home)
    with pytest.raises(UsageError, match="prose"):
        train.run((*say_tasks, task), llama_base, RECIPE, home, device="cpu")
    harvest.run((task,), llama_base, FRAME.model_copy(update={"steps": 4}), home, device="cpu")
    result = train.run((*say_tasks, task), llama_base, RECIPE, home, device="cpu")
    assert result.harvested == 1 and "prose" in result.tasks


def test_without_episodes_each_task_needs_an_adapter(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    harvest.run(say_tasks[:1], llama_base, FRAME, home, device="cpu")
    with pytest.raises(NotFoundError):
        train.run(say_tasks, llama_base, varied(RECIPE, episodes=None), home, device="cpu")


def test_tasks_with_adapters_can_be_read_by_attention_without_episodes(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    harvest.run(say_tasks[:2], llama_base, FRAME, home, device="cpu")
    recipe = varied(RECIPE, episodes=None, steps=200, learning_rate=3e-3, elbo_weight=0.5)
    result = train.run(say_tasks[:2], llama_base, recipe, home, device="cpu")
    assert result.validation is None and result.builtin == 0 and result.error < 0.5
    generate.run("Write dog.", tmp_path / "out", GenRequest(result.folder), llama_base, home, device="cpu")
