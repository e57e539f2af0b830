"""The tasks that episodes draw from: which they are, their queries encoded, their supports read."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.lm.lengths import check_fit
from icmlora_cli.lm.prompts import Encoded, encode, encode_task
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.task_record import PromptTemplate
from icmlora_cli.registry.tasks import Task
from icmlora_cli.tasks.builtin import BuiltinTask, builtin_names, builtin_task, dense_tasks, phrase
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.splits import part_of
from icmlora_cli.tasks.task_text import MAX_TEXT
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class EpisodeTask:
    """A task that episodes are drawn from.

    Args:
        name: for people.
        queries: encoded training examples.
        texts: states of its descriptions, [T, hidden] each.
        demonstrations: states of draws of demonstrations.
        registered: it is a user's, not a built-in one.
        family: a group of related tasks; among built-in tasks the larger families do not crowd out the smaller.
        left_out: examples that are no queries, as they have more tokens than the recipe's ``max_tokens``.
    """

    name: str
    queries: tuple[Encoded, ...]
    texts: tuple[torch.Tensor, ...]
    demonstrations: tuple[torch.Tensor, ...]
    registered: bool
    family: str
    left_out: int = 0


@dataclass(frozen=True)
class _Plan:
    """What is read and asked of a task, before any state is computed."""

    name: str
    queries: tuple[Encoded, ...]
    texts: tuple[str, ...]
    draws: tuple[tuple[Example, ...], ...]
    registered: bool
    family: str
    left_out: int


def builtin_pool(
    recipe: EpisodeRecipe, seed: int, registered: Collection[str] = ()
) -> tuple[list[BuiltinTask], list[BuiltinTask]]:
    """Return the built-in tasks to train on, and those that tell the best weights.

    Held-out combinations and excluded names are in neither, nor are those that are registered.
    """
    if recipe.builtin == "none":
        return [], []
    if recipe.builtin == "dense":
        every = list(dense_tasks())
    else:
        every = [task for task in map(builtin_task, builtin_names()) if not task.held_out]
    kept = [
        task
        for task in every
        if task.name not in registered and not any(fnmatchcase(task.name, item) for item in recipe.builtin_exclude)
    ]
    kept = _thinned(kept, recipe.per_family, seed)
    order = sorted(task.name for task in kept)
    random.Random(f"icmlora validation tasks {seed}").shuffle(order)
    held = set(order[: min(recipe.validation_tasks, len(order) // 4)])
    return [task for task in kept if task.name not in held], [task for task in kept if task.name in held]


def _thinned(tasks: Sequence[BuiltinTask], most: int | None, seed: int) -> list[BuiltinTask]:
    """Return at most so many tasks of each family, those of the catalogue first."""
    if most is None:
        return list(tasks)
    curated, chosen = set(builtin_names()), set[str]()
    for family in dict.fromkeys(task.family for task in tasks):
        own = [task.name for task in tasks if task.family == family]
        random.Random(f"icmlora family {family} {seed}").shuffle(own)
        own.sort(key=lambda name: name not in curated)
        chosen |= set(own[:most])
    return [task for task in tasks if task.name in chosen]


def read_tasks(
    registered: Sequence[Task],
    builtin: Sequence[BuiltinTask],
    reader: VectorReader,
    recipe: TrainRecipe,
    *,
    on_progress: OnProgress = silent,
) -> list[EpisodeTask]:
    """Return tasks with their queries encoded and their supports read, of all tokens or pooled as the recipe says.

    Args:
        registered: users' tasks; of each, the training examples alone are looked at.
        builtin: built-in tasks.
        reader: reads states from the base.
        recipe: how.
        on_progress: told how much is read.
    """
    assert recipe.episodes is not None
    plans = [_registered_plan(task, reader, recipe) for task in registered]
    plans += [_builtin_plan(task, reader, recipe) for task in builtin]
    prompts = [reader.text_states(text) for plan in plans for text in plan.texts]
    pooled = recipe.data.vectors.pooling == "mean"
    shown = reader.question_state if pooled else reader.examples_states
    prompts += [shown(draw) for plan in plans for draw in plan.draws]

    def report(done: int) -> None:
        on_progress(Progress("vectors", "of episodes", done, len(prompts)))

    states = iter(reader.read_all(prompts, on_batch=report))
    texts = [tuple(next(states) for _ in plan.texts) for plan in plans]
    draws = [tuple(next(states) for _ in plan.draws) for plan in plans]
    if pooled:
        texts = [tuple(item.mean(0, keepdim=True) for item in own) for own in texts]
    return [
        EpisodeTask(plan.name, plan.queries, text, shown, plan.registered, plan.family, plan.left_out)
        for plan, text, shown in zip(plans, texts, draws, strict=True)
    ]


def _registered_plan(task: Task, reader: VectorReader, recipe: TrainRecipe) -> _Plan:
    rng = random.Random(f"icmlora episodes {task.name} {recipe.seed}")
    examples = task.examples("train")
    rows = encode_task(reader.loaded.tokenizer, task, examples)
    queries = _short(rows, recipe)
    check_fit(reader.loaded, queries, task, ())
    texts = tuple(dict.fromkeys(form for text in task.descriptions for form in _forms(text)))
    return _Plan(
        task.name,
        queries,
        texts,
        _draws(examples, recipe, rng),
        registered=True,
        family=task.family or task.name,
        left_out=len(rows) - len(queries),
    )


def _forms(text: str) -> tuple[str, ...]:
    """Return a description as it is and as others would type it."""
    bare = text.rstrip(".")
    lower = bare[0].lower() + bare[1:] if len(bare) > 1 and not bare[1].isupper() else bare
    forms = (text, lower) if text.endswith("?") else (text, lower, f"Please {lower}.")
    return tuple(form for form in forms if len(form) <= MAX_TEXT)


def _builtin_plan(task: BuiltinTask, reader: VectorReader, recipe: TrainRecipe) -> _Plan:
    episodes = recipe.episodes
    assert episodes is not None
    rng = random.Random(f"icmlora episodes {task.name} {recipe.seed}")
    examples = learnable(task, episodes, recipe.seed)
    templates = [PromptTemplate("plain", item.prompt, item.answer) for item in episodes.templates]
    rows = [encode(reader.loaded.tokenizer, rng.choice(templates), example) for example in examples]
    queries = _short(rows, recipe)
    texts = list(task.descriptions)
    if episodes.phrasings:
        texts += [phrase(task, rng) for _ in range(episodes.phrasings)]
    return _Plan(
        task.name,
        queries,
        tuple(dict.fromkeys(texts)),
        _draws(examples, recipe, rng),
        registered=False,
        family=task.family,
        left_out=len(rows) - len(queries),
    )


def learnable(task: BuiltinTask, recipe: EpisodeRecipe, seed: int) -> tuple[Example, ...]:
    """Return the examples of a built-in task that are learned from: of the part ``train``, as when it is registered.

    A domain so small that it has none of that part gives one example.
    """
    drawn = task.examples(recipe.builtin_examples, seed)
    return tuple(item for item in drawn if part_of(item.input) == "train") or drawn[:1]


def _short(rows: Sequence[Encoded], recipe: TrainRecipe) -> tuple[Encoded, ...]:
    """Return the rows that are short enough, or the shortest where none is."""
    assert recipe.episodes is not None
    kept = tuple(row for row in rows if row.length <= recipe.episodes.max_tokens)
    return kept or (min(rows, key=lambda row: row.length),)


def _draws(examples: Sequence[Example], recipe: TrainRecipe, rng: random.Random) -> tuple[tuple[Example, ...], ...]:
    """Return draws of demonstrations, from two of them up to one more than the recipe's shots."""
    if len(examples) < 2:
        return ()
    most = min(recipe.data.vectors.shots + 1, len(examples))
    counts = [rng.randint(max(2, most - 3), most) for _ in range(recipe.data.vectors.draws)]
    return tuple(tuple(rng.sample(list(examples), count)) for count in counts)
