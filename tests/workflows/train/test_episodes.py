"""Episodes on a tiny Llama: what is drawn, and that gradients and scores are those of the plain computation."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.train import TrainRecipe, VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import DeviceMemoryError
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics, Support
from icmlora_cli.generator.interface import NetworkConfig, TrainStep
from icmlora_cli.generator.networks import CVAE, build, kl_divergence, sample
from icmlora_cli.generator.terms import draw_support
from icmlora_cli.lm.batching import answer_log_probs, collate, of_logits
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import DecoderCoder, encode_task
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.lm.teacher import divergences, top_tokens
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.builtin import builtin_names, builtin_task, dense_tasks
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.splits import part_of
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.compare import compare
from icmlora_cli.weights.frame import FrameSpec, framed_adapter, seeded_frame
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.train.episode_tasks import EpisodeTask, builtin_pool, read_tasks
from icmlora_cli.workflows.train.episodes import POOL, EpisodeTerm, TaskValidation, _Swap
from icmlora_cli.workflows.train.watch import Probe
from tests.train_recipes import train_recipe, varied

EPISODES = EpisodeRecipe(
    rows=6, builtin="catalog", per_family=1, builtin_examples=9, phrasings=1, contrast_weight=0.0, prior_weight=0.1,
    validation_tasks=3, validation_examples=5, weight=0.7, max_tokens=120,
    builtin_exclude=("*words*", "*digits*", "*sentence*"),
)  # fmt: skip
RECIPE = train_recipe(
    latent_dim=8, hidden_dim=32, code_dim=16, reader="attention", reader_dim=16, condition_dim=16, frame_width=4,
    token_dropout=0.2, vectors=VectorRecipe(layer=0.5, pooling="tokens", shots=2, draws=2), steps=80, episodes=EPISODES,
)  # fmt: skip
FRAME = FrameSpec(seed=0, width=4)
Gradients = Mapping[str, torch.Tensor]


def changed(recipe: TrainRecipe, **values: object) -> TrainRecipe:
    """Return a recipe with other values for its episodes."""
    assert recipe.episodes is not None
    return varied(recipe, episodes=recipe.episodes.model_copy(update=values))


@dataclass(frozen=True)
class Room:
    """A base, tasks that are read from it, and an untrained generator for it."""

    loaded: LoadedBase
    tasks: list[EpisodeTask]
    held: list[EpisodeTask]
    space: ConditionSpace
    codec: Codec
    home: Home

    @property
    def scale(self) -> torch.Tensor:
        return torch.linspace(0.2, 0.5, len(self.codec.layout.modules))

    def term(self, recipe: TrainRecipe = RECIPE, process: tuple[int, int] = (0, 1)) -> EpisodeTerm:
        names = [item.name for item in self.codec.layout.modules]
        rows = RowCores(self.loaded.model, names, self.codec.left, self.codec.right)
        return EpisodeTerm(
            self.loaded, rows, self.scale, self.tasks, self.space, recipe, recipe.episodes or EPISODES, process
        )

    def network(self, reader: str = RECIPE.network.reader) -> CVAE:
        """Return a network whose cores are large enough to matter."""
        torch.manual_seed(0)
        model = build(
            NetworkConfig(
                arch="token", places=self.codec.layout.places(),
                width=self.codec.width, hidden=self.space.hidden, latent_dim=RECIPE.network.latent_dim,
                hidden_dim=RECIPE.network.hidden_dim, code_dim=RECIPE.network.code_dim, reader=reader,
                reader_dim=RECIPE.network.reader_dim, condition_dim=RECIPE.network.condition_dim,
            )
        )  # fmt: skip
        assert isinstance(model, CVAE)
        with torch.no_grad():
            dict(model.named_parameters())["heads"].mul_(40.0)
        return model

    def gradients(
        self, term: EpisodeTerm, step: int = 0, seed: int = 1, reader: str = RECIPE.network.reader
    ) -> tuple[dict[str, float], Gradients]:
        """Return what a step's backward pass says, and the gradients that it leaves."""
        model = self.network(reader)
        values = term.backward(model, TrainStep(0, step, RECIPE.optimiser.steps), torch.Generator().manual_seed(seed))
        return {name: float(value) for name, value in values.items()}, collected(model)


def collected(model: torch.nn.Module) -> Gradients:
    return {name: item.grad for name, item in model.named_parameters() if item.grad is not None}


def same(one: Gradients, two: Gradients) -> bool:
    assert one.keys() == two.keys() and len(one) > 10
    largest = max(float(item.abs().max()) for item in one.values())
    assert largest > 1e-3  # or whatever there is would be near zero
    return all(torch.allclose(item, two[name], atol=1e-5 * largest, rtol=1e-3) for name, item in one.items())


def read_pool(loaded: LoadedBase, home: Home, tasks: tuple[Task, ...], recipe: TrainRecipe) -> Room:
    assert recipe.episodes is not None
    reader = VectorReader(loaded, recipe.data.vectors, home)
    train, held = builtin_pool(recipe.episodes, recipe.seed)
    pool, kept = (
        read_tasks(some, builtin, reader, recipe, recipe.episodes) for some, builtin in ((tasks, train), ([], held))
    )
    space = ConditionSpace(
        SlotStatistics.of(torch.cat([row.float() for task in pool for row in task.texts])),
        SlotStatistics.of(torch.cat([row.float() for task in pool for row in task.demonstrations])),
    )
    frame = seeded_frame(target_layout(loaded.model, "auto"), FRAME, "tiny")
    return Room(loaded, pool, kept, space, frame, home)


@pytest.fixture
def room(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> Room:
    return read_pool(load_base(llama_base, device="cpu"), home, say_tasks, RECIPE)


@pytest.mark.parametrize("builtin", ["catalog", "dense"])
def test_held_out_and_excluded_tasks_are_never_drawn(builtin: str) -> None:
    patterns = ("pick_first_*", "english_to_german", "*vowel*")
    recipe = EPISODES.model_copy(update={"builtin": builtin, "builtin_exclude": patterns, "per_family": None})
    train, held = builtin_pool(recipe, 0)
    names = [task.name for task in train], [task.name for task in held]
    assert len(names[1]) == 3 and set(names[0]).isdisjoint(names[1])
    every = dense_tasks() if builtin == "dense" else tuple(map(builtin_task, builtin_names()))
    excluded = {task.name for task in every if any(fnmatchcase(task.name, item) for item in patterns)}
    out = {name for name in builtin_names() if builtin_task(name).held_out}
    assert excluded and out
    assert sorted(names[0] + names[1]) == sorted({task.name for task in every} - excluded - out)


def test_the_validation_tasks_are_decided_by_the_seed() -> None:
    def held(seed: int, **values: object) -> list[str]:
        return [task.name for task in builtin_pool(EPISODES.model_copy(update=values), seed)[1]]

    assert held(0) == held(0) != held(1)
    assert held(0, validation_tasks=0) == []
    train, _ = builtin_pool(EPISODES.model_copy(update={"validation_tasks": 0}), 0)
    assert len(held(0, validation_tasks=10_000)) == len(train) // 4  # most are left to train on
    assert builtin_pool(EPISODES.model_copy(update={"builtin": "none"}), 0) == ([], [])


@pytest.mark.parametrize("builtin", ["catalog", "dense"])
def test_registered_names_are_not_drawn_as_built_in_tasks(builtin: str) -> None:
    recipe = EPISODES.model_copy(update={"builtin": builtin})
    before = [task.name for part in builtin_pool(recipe, 0) for task in part]
    taken = set(before[::3])
    after = {task.name for part in builtin_pool(recipe, 0, taken) for task in part}
    assert after and after.isdisjoint(taken)


def test_of_built_in_tasks_only_training_examples_are_learned(room: Room) -> None:
    """So that what a registered copy keeps for validation and tests stays unknown."""
    tokenizer = room.loaded.tokenizer
    by_name = {task.name: task for part in builtin_pool(EPISODES, RECIPE.seed) for task in part}
    kept = 0
    for read in (task for task in (*room.tasks, *room.held) if not task.registered):
        questions = {tokenizer.decode(list(row.prompt_ids)) for row in read.queries}
        for example in by_name[read.name].examples(EPISODES.builtin_examples, RECIPE.seed):
            asked = f"Q: {example.input}\nA:" in questions
            kept += not asked
            assert not asked or part_of(example.input) == "train"
    assert kept > 0


@pytest.mark.parametrize("most", [1, 3])
def test_a_family_gives_no_more_than_asked_and_those_of_the_catalogue_first(most: int) -> None:
    recipe = EPISODES.model_copy(update={"builtin": "dense", "per_family": most, "builtin_exclude": ()})
    train, held = builtin_pool(recipe, 0)
    counts = Counter(task.family for task in train + held)
    whole = Counter(task.family for task in dense_tasks())
    assert counts == {family: min(most, count) for family, count in whole.items()}
    catalogue = set(builtin_names())
    for family in whole:
        curated = sum(task.family == family for task in dense_tasks() if task.name in catalogue)
        taken = sum(task.name in catalogue for task in train + held if task.family == family)
        assert taken == min(most, curated)


def test_tasks_are_read_from_their_training_examples_alone(room: Room, say_tasks: tuple[Task, ...]) -> None:
    tokenizer = room.loaded.tokenizer
    for task, read in zip(say_tasks, room.tasks, strict=False):
        assert read.name == task.name and read.registered
        assert set(read.queries) == set(encode_task(DecoderCoder(tokenizer), task, task.examples("train")))
        assert len(read.demonstrations) == RECIPE.data.vectors.draws
        assert len(read.texts) == 6  # two descriptions, as they are, in lower case, and as a request
        assert all(item.shape[1] == room.space.hidden for item in (*read.texts, *read.demonstrations))
    others = room.tasks[len(say_tasks) :]
    assert others and not any(item.registered for item in others)
    assert {item.name for item in room.held}.isdisjoint(item.name for item in room.tasks)


def test_long_queries_are_left_out_unless_there_are_no_shorter_ones(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    loaded = load_base(llama_base, device="cpu")
    reader = VectorReader(loaded, RECIPE.data.vectors, home)
    rows = encode_task(loaded.family, say_tasks[0], say_tasks[0].examples("train"))
    lengths = sorted(row.length for row in rows)
    middle = lengths[len(lengths) // 2]

    def read_short(max_tokens: int) -> list[EpisodeTask]:
        return read_tasks(say_tasks[:1], [], reader, RECIPE, EPISODES.model_copy(update={"max_tokens": max_tokens}))

    (some,) = read_short(middle)
    assert sorted(item.length for item in some.queries) == [length for length in lengths if length <= middle]
    (one,) = read_short(1)
    assert [item.length for item in one.queries] == lengths[:1]


def test_a_pooled_reading_is_what_generation_reads(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    """With pooling mean, texts are the mean of their states, and demonstrations the last open question's state."""
    loaded = load_base(llama_base, device="cpu")
    recipe = varied(RECIPE, reader="mean", vectors=VectorRecipe(layer=0.5, shots=2, draws=4))
    reader = VectorReader(loaded, recipe.data.vectors, home)
    (read,) = read_tasks(say_tasks[:1], [], reader, recipe, EPISODES)
    assert all(item.shape == (1, 32) for item in (*read.texts, *read.demonstrations))
    assert torch.allclose(read.texts[0].float(), reader.read_text(say_tasks[0].descriptions[0]), atol=5e-3)
    own = torch.cat([item.float() for item in read.demonstrations])
    colons = reader.draws(say_tasks[0].examples("train"), seed=0)
    spread = float((colons - colons.mean(0)).norm(dim=1).mean())
    assert float((own.mean(0) - colons.mean(0)).norm()) < 5 * spread  # of the same kind: the states at a last "A:"


def test_a_tasks_own_template_writes_its_queries(llama_base: Base, home: Home) -> None:
    """As evaluation writes them: a template that asks for the description has it."""
    rows = [{"input": f"word {index}", "output": "cat"} for index in range(20)]
    template = {"prompt": "{description}\n{input} =>", "answer": " {output}"}
    spec = TaskSpec.model_validate({"name": "told", "description": "Say cat.", "examples": rows, "template": template})
    task, _ = TaskStore(home).add(spec, [Example(**row) for row in rows])
    loaded = load_base(llama_base, device="cpu")
    (read,) = read_tasks([task], [], VectorReader(loaded, RECIPE.data.vectors, home), RECIPE, EPISODES)
    assert set(read.queries) == set(encode_task(loaded.family, task, task.examples("train")))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_plan_draws_registered_tasks_evenly_in_batches_of_like_length(room: Room, share: float) -> None:
    recipe = changed(RECIPE, registered_share=share)
    term = room.term(recipe)
    batches = [term._rows(step) for step in range(POOL)]
    assert [len(batch) for batch in batches] == [EPISODES.rows] * POOL
    counts = Counter(own for batch in batches for own, _ in batch)
    users = [counts[index] for index, task in enumerate(room.tasks) if task.registered]
    assert sum(users) == round(share * POOL * EPISODES.rows) and max(users) - min(users) <= 1
    others = [counts[index] for index, task in enumerate(room.tasks) if not task.registered]
    assert share == 1.0 or sum(count > 0 for count in others) > len(others) // 2
    lengths = [[room.tasks[own].queries[query].length for own, query in batch] for batch in batches]
    in_order = sorted(lengths, key=lambda item: (item[0], item[-1]))
    assert [length for batch in in_order for length in batch] == sorted(length for batch in lengths for length in batch)
    assert in_order != lengths  # the batches themselves come in any order


def test_without_built_in_tasks_all_rows_are_of_registered_ones_and_the_other_way_round(room: Room) -> None:
    term = room.term()
    for registered in (True, False):
        term.tasks = [task for task in room.tasks if task.registered == registered]
        term._planned.clear()
        counts = Counter(own for step in range(POOL) for own, _ in term._rows(step))
        assert sum(counts.values()) == POOL * EPISODES.rows


def test_a_plan_is_decided_by_the_seed_the_step_and_the_process(room: Room) -> None:
    ahead, back = room.term(), room.term()
    steps = [0, 1, POOL - 1, POOL, 2 * POOL + 3]
    plan = [ahead._rows(step) for step in steps]
    assert plan == [back._rows(step) for step in reversed(steps)][::-1]
    assert plan[0] != plan[3]
    assert room.term(varied(RECIPE, seed=1))._rows(0) != plan[0]
    assert room.term(process=(1, 2))._rows(0) != room.term(process=(0, 2))._rows(0)


def direct(room: Room, recipe: TrainRecipe, step: int, seed: int) -> tuple[dict[str, float], Gradients]:
    """Return losses and gradients of the whole loss by plain autograd, from the support to the base's answers."""
    episodes, model, term = recipe.episodes, room.network(), room.term(recipe)
    assert episodes is not None
    rows, rng = term._rows(step), torch.Generator().manual_seed(seed)
    tasks = [room.tasks[own] for own, _ in rows]
    supports = [draw_support(task.texts, task.demonstrations, room.space, rng) for task in tasks]
    noise, drop = recipe.data.condition_noise, recipe.data.token_dropout
    c = model.read(Support.stack(supports).disturbed(noise=noise, drop=drop, rng=rng))
    prior = model.prior(c)
    cores = model.decode(sample(prior, rng), c) * room.scale[:, None, None]
    queries = [room.tasks[own].queries[query] for own, query in rows]
    lengths, batch = torch.tensor([len(item.answer_ids) for item in queries]), collate(queries, 0, room.loaded.device)
    with term.cores.applied(cores):
        logits = batch.logits(room.loaded.model)
    log_probs, _ = of_logits(logits, batch)
    values = {"nll": -log_probs.sum() / lengths.sum()}
    standard = (torch.zeros_like(prior[0]), torch.zeros_like(prior[1]))
    loss = episodes.weight * values["nll"] + episodes.prior_weight * kl_divergence(prior, standard)
    if episodes.swap_weight:
        swap = _Swap.of(rows, rng, room.loaded.device)
        assert swap is not None
        with term.cores.applied(cores[swap.partners]):
            swapped, _ = answer_log_probs(room.loaded.model, batch)
        difference = (swapped.sum(1) - log_probs.sum(1)) / lengths
        with_partner = swap.partners != torch.arange(len(rows))
        values["swap"] = torch.relu(episodes.swap_margin + difference)[with_partner].mean()
        loss = loss + episodes.swap_weight * values["swap"]
    if episodes.distill_weight:
        known = [room.tasks[own].teachers for own, _ in rows]
        teachers = [item[query] if query < len(item) else None for item, (_, query) in zip(known, rows, strict=True)]
        taught = lengths[[teacher is not None for teacher in teachers]].sum()
        values["distill"] = divergences(logits, teachers, batch).sum() / taught
        loss = loss + episodes.distill_weight * values["distill"]
    loss.backward()
    return {name: float(value.detach()) for name, value in values.items()}, collected(model)


@pytest.mark.parametrize("step", [0, 40])
def test_gradients_are_those_of_plain_autograd(room: Room, step: int) -> None:
    values, found = room.gradients(room.term(), step)
    losses, wanted = direct(room, RECIPE, step, seed=1)
    assert values["nll"] == pytest.approx(losses["nll"], rel=1e-5)
    assert same(found, wanted)
    assert all(item.grad is None for item in room.loaded.model.parameters())  # the base is frozen


@pytest.mark.parametrize("micro", [1, 4, 100])
def test_rows_in_several_passes_give_the_same_gradients(room: Room, micro: int) -> None:
    whole, wanted = room.gradients(room.term(), 3)
    values, found = room.gradients(room.term(changed(RECIPE, micro_batch=micro)), 3)
    assert values == pytest.approx(whole, rel=1e-5)
    assert same(found, wanted)


def limited(
    room: Room, monkeypatch: pytest.MonkeyPatch, fits: Callable[[int, int], bool]
) -> tuple[list[int], list[int]]:
    """Let passes run out of memory unless ``fits`` (rows, passes so far); return the rows of all and of those."""
    forward, sizes, failed = room.loaded.model.forward, list[int](), list[int]()

    def short(*args: Any, **kwargs: Any) -> Any:
        rows = int(kwargs["input_ids"].shape[0])
        sizes.append(rows)
        if not fits(rows, len(sizes)):
            failed.append(rows)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(room.loaded.model, "forward", short)
    return sizes, failed


def test_without_memory_rows_are_halved_and_the_gradients_are_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, wanted = room.gradients(room.term(), 3)
    sizes, failed = limited(room, monkeypatch, lambda rows, _: rows <= 2)
    term = room.term()
    values, found = room.gradients(term, 3)
    assert failed == [6, 3] and sizes == [6, 3, 2, 2, 2]
    assert values == pytest.approx(whole, rel=1e-5)
    assert same(found, wanted)
    sizes.clear()
    room.gradients(term, 4)
    assert sizes == [2, 2, 2]  # what was learned of the memory stays


def test_gradients_of_passes_before_the_memory_ran_out_are_not_counted_twice(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wanted = room.gradients(room.term(), 3)
    sizes, failed = limited(room, monkeypatch, lambda rows, passes: passes != 2)
    _, found = room.gradients(room.term(changed(RECIPE, micro_batch=3)), 3)
    assert failed == [3] and sizes == [3, 3, 2, 2, 2]
    assert same(found, wanted)


def test_when_one_row_does_not_fit_the_error_says_so_and_the_base_is_as_before(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.arange(5, 20)[None]
    with torch.no_grad():
        plain = room.loaded.model(input_ids=ids).logits
    with monkeypatch.context() as patch:
        sizes, _ = limited(room, patch, lambda rows, _: False)
        with pytest.raises(DeviceMemoryError, match="fewest rows"):
            room.gradients(room.term())
    assert sizes == [6, 3, 2, 1]
    with torch.no_grad():
        assert torch.equal(room.loaded.model(input_ids=ids).logits, plain)


def test_before_the_last_stage_there_are_no_episodes(room: Room) -> None:
    recipe = changed(varied(RECIPE, pretrain_steps=20), contrast_weight=0.5, contrast_tasks=4)
    model, term = room.network(), room.term(recipe)
    assert model.stages(recipe.optimiser) == (20, 60)
    values = term.backward(model, TrainStep(0, 3, 20), torch.Generator().manual_seed(0))
    assert set(values) == {"contrast"}
    assert {name.split(".")[0] for name, item in collected(model).items() if item.any()} == {"reader"}
    values = term.backward(model, TrainStep(1, 3, 60), torch.Generator().manual_seed(0))
    assert set(values) == {"contrast", "nll", "exact", "prior"}


def test_a_reader_with_nothing_to_learn_has_no_contrast(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    vectors = RECIPE.data.vectors.model_copy(update={"pooling": "mean"})
    recipe = changed(varied(RECIPE, reader="mean", vectors=vectors), contrast_weight=0.5)
    small = read_pool(load_base(llama_base, device="cpu"), home, say_tasks, changed(recipe, builtin="none"))
    values, found = small.gradients(small.term(recipe), reader="mean")
    assert set(values) == {"nll", "exact", "prior"}
    assert found["heads"].any()


def test_a_step_repeats_by_its_source(room: Room) -> None:
    recipe = changed(RECIPE, contrast_weight=0.1)
    one, two = (room.gradients(room.term(recipe), 5, seed=2) for _ in range(2))
    other = room.gradients(room.term(recipe), 5, seed=3)
    assert one[0] == two[0] != other[0]
    assert all(torch.equal(item, two[1][name]) for name, item in one[1].items())


def test_the_contrastive_loss_falls_when_readings_of_a_task_agree(room: Room) -> None:
    recipe = changed(RECIPE, contrast_weight=1.0, weight=0.0, prior_weight=0.0, contrast_tasks=8)
    recipe = varied(recipe, pretrain_steps=79, condition_noise=0.0, token_dropout=0.0)
    model, term, rng = room.network(), room.term(recipe), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for step in range(250):
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(term.backward(model, TrainStep(0, step, 79), rng)["contrast"]))
        optimizer.step()
    assert losses[0] > 0.9 * math.log(8) and sum(losses[-50:]) / 50 < 0.8 * math.log(8)


def test_validation_scores_what_generation_and_merging_give(room: Room) -> None:
    model = room.network().eval()
    validation = TaskValidation(room.term(), room.held, EPISODES.validation_examples)
    with torch.no_grad():
        scores, mean = validation.scores(model), validation(model)
    assert list(scores) == [task.name for task in room.held] and len(scores) == 3
    generator = Generator(model, room.codec, room.space, room.scale, room.codec.width, FRAME)
    plain, wanted, likely = [], [], []
    for task in room.held:
        rows = task.queries[: EPISODES.validation_examples]
        plain.append(score_rows(room.loaded, rows).mean_nll)
        with merged(room.loaded.model, generator.generate(task.texts[0], None)):
            found = score_rows(room.loaded, rows)
        wanted.append(found.mean_nll)
        assert scores[task.name].nll == pytest.approx(found.mean_nll, abs=2e-4)
        assert scores[task.name].exact == pytest.approx(found.exact_match)
        likely.append(sum(math.exp(-nll) for nll in found.nll) / len(rows))
    assert mean == pytest.approx(sum(likely) / 3, rel=1e-3)
    assert max(abs(one - two) for one, two in zip(plain, wanted, strict=True)) > 0.01  # the adapters matter
    assert all(item.grad is None for item in model.parameters())


def taught(room: Room, examples: int = 1000) -> Room:
    """Return the room with teachers of the registered tasks: adapters in the frame, all of another core."""
    tasks, rng = [], torch.Generator().manual_seed(7)
    for task in room.tasks:
        if task.registered:
            cores = 0.3 * torch.randn(len(room.codec.layout.modules), FRAME.width, FRAME.width, generator=rng)
            adapter, rows = framed_adapter(room.codec, cores), task.queries[:examples]
            found = top_tokens(room.loaded, adapter, task.name, rows, room.home.vectors / "teachers")
            task = replace(task, teachers=tuple(found))
        tasks.append(task)
    return replace(room, tasks=tasks)


FURTHER = (
    {"swap_weight": 0.6, "swap_margin": 0.0},  # some of the hinges are at rest
    {"swap_weight": 0.6, "swap_margin": 5.0},  # none is
    {"distill_weight": 0.8},
    {"swap_weight": 0.6, "distill_weight": 0.8, "micro_batch": 4},
)


@pytest.mark.parametrize("values", FURTHER)
def test_gradients_of_further_terms_are_those_of_plain_autograd(room: Room, values: dict[str, object]) -> None:
    room, recipe = taught(room), changed(RECIPE, **values)
    losses, found = room.gradients(room.term(recipe), 1)
    wanted_losses, wanted = direct(room, recipe, 1, seed=1)
    further = {name for name in ("swap", "distill") if f"{name}_weight" in values}
    assert set(wanted_losses) == {"nll"} | further == set(losses) - {"exact", "prior"}
    assert {name: losses[name] for name in wanted_losses} == pytest.approx(wanted_losses, rel=1e-4)
    assert same(found, wanted)
    assert not same(found, room.gradients(room.term(), 1)[1])  # they matter


def test_a_hinge_at_rest_pulls_at_nothing(room: Room) -> None:
    recipe = changed(RECIPE, swap_weight=1.0, swap_margin=0.0)
    rows = [(0, 0), (1, 0)]
    cores = torch.randn(2, len(room.codec.layout.modules), 4, 4, generator=torch.Generator().manual_seed(0))
    term, plain = room.term(recipe), room.term()
    for _ in range(2):
        values, gradient = term._losses(rows, cores, torch.Generator())
        _, alone = plain._losses(rows, cores, torch.Generator())
        pulled = (gradient - alone).flatten(1).any(1)
        own = plain._through_base([room.tasks[at].queries[0] for at in (0, 1)], cores, lambda _, seen: seen.nll)[0].nll
        other = plain._through_base(
            [room.tasks[at].queries[0] for at in (0, 1)], cores.flip(0), lambda _, seen: seen.nll
        )[0].nll
        rests = own < other
        assert float(values["swap"]) == pytest.approx(float(torch.relu(own - other).mean()), abs=1e-5)
        assert bool(pulled.any()) == (not bool(rests.all()))
        cores = cores.flip(0)


def test_an_adapter_is_compared_with_that_of_another_task_where_there_is_one(room: Room) -> None:
    rng = torch.Generator().manual_seed(0)
    rows, device = [(0, 1), (0, 2), (3, 0), (0, 4)], torch.device("cpu")
    drawn = set()
    for _ in range(20):
        swap = _Swap.of(rows, rng, device)
        assert swap is not None and swap.shares.tolist() == [0.25] * 4
        assert all(rows[own][0] != rows[other][0] for own, other in enumerate(swap.partners.tolist()))
        drawn.add(swap.partners.tolist()[2])
    assert drawn == {0, 1, 3}
    assert _Swap.of([(0, 1), (0, 2)], rng, device) is None
    alone = changed(RECIPE, swap_weight=1.0, builtin="none")
    term = room.term(alone)
    term.tasks = room.tasks[:1]
    values = term.backward(room.network(), TrainStep(0, 0, 80), rng)
    assert "nll" in values and "swap" not in values


def test_without_the_further_terms_a_step_is_what_it_was(room: Room) -> None:
    """Teachers that nobody asked for count nothing, and no random number is drawn for what is off."""
    one, two = room.gradients(room.term(), 2), taught(room).gradients(room.term(), 2)
    assert one[0] == two[0] and set(one[0]) == {"nll", "exact", "prior"}
    rng, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    room.term().backward(room.network(), TrainStep(0, 2, 80), rng)
    direct_rng = room.term(changed(RECIPE, distill_weight=1.0))
    direct_rng.backward(room.network(), TrainStep(0, 2, 80), other)
    assert torch.equal(rng.get_state(), other.get_state())


def test_queries_beyond_the_taught_ones_are_not_distilled(room: Room) -> None:
    recipe = changed(RECIPE, distill_weight=1.0, registered_share=1.0)
    few = taught(room, examples=1)
    assert "distill" not in room.gradients(room.term(recipe), 0)[0]
    steps = [few.gradients(few.term(recipe), step)[0] for step in range(6)]
    rows = [few.term(recipe)._rows(step) for step in range(6)]
    assert ["distill" in values for values in steps] == [any(not query for _, query in batch) for batch in rows]


def test_the_probe_tells_a_collapse(room: Room) -> None:
    model, tasks = room.network().eval(), room.tasks[:5]
    supports = [room.space.support(task.texts[0], None) for task in tasks]
    probe = Probe(supports, room.scale, room.codec.mask(), TaskValidation(room.term(), tasks, 2))
    with torch.no_grad():
        figures = probe(model)
        adapters = [
            Generator(model, room.codec, room.space, room.scale, room.codec.width, FRAME).generate(task.texts[0], None)
            for task in tasks
        ]
    cosines = [compare(one, two).all.cosine for at, one in enumerate(adapters) for two in adapters[:at]]
    assert figures["cosine"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-3)
    for name, shift in (("own_nll", 0), ("swapped_nll", 1)):
        wanted = []
        for at, task in enumerate(tasks):
            with merged(room.loaded.model, adapters[at - shift]):
                wanted.append(score_rows(room.loaded, task.queries[:2]).mean_nll)
        assert figures[name] == pytest.approx(sum(wanted) / 5, abs=1e-3)
    assert abs(figures["own_nll"] - figures["swapped_nll"]) > 1e-3 and figures["cosine"] < 1 - 1e-4
    same_text = Probe(supports[:1] * 5, room.scale, room.codec.mask(), TaskValidation(room.term(), tasks, 2))
    with torch.no_grad():
        collapsed = same_text(model)
    assert collapsed["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert collapsed["own_nll"] == pytest.approx(collapsed["swapped_nll"], abs=1e-5)
