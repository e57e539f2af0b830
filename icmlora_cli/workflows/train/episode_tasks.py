"""The tasks that episodes draw from: choosing them, encoding their queries and reading their supports."""

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
from icmlora_cli.lm.teacher import TopTokens
from icmlora_cli.registry.task_record import PromptTemplate
from icmlora_cli.registry.tasks import Task
from icmlora_cli.tasks.builtin import BuiltinTask, builtin_names, builtin_task, dense_tasks, phrase
from icmlora_cli.tasks.examples import Example, have_pictures
from icmlora_cli.tasks.splits import part_of
from icmlora_cli.tasks.task_text import MAX_TEXT
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class EpisodeTask:
    """A task that episodes are drawn from, ready for training; ``read_tasks`` makes it.

    Args:
        name: The name of the task.
        queries: The training examples as token ids.
        texts: The hidden states of each description, [T, hidden]; T is 1 where the recipe pools them.
        demonstrations: The hidden states of each draw of demonstrations, [T, hidden].
        registered: Whether a user registered the task; False for a built-in one.
        family: The family of the task. Built-in tasks are drawn by family, so that a large one does not crowd out
            the small ones.
        left_out: How many examples are no queries, since they have more tokens than the recipe's ``max_tokens``.
        teachers: What the task's harvested adapter says of the first queries' answers; empty without distillation.
    """

    name: str
    queries: tuple[Encoded, ...]
    texts: tuple[torch.Tensor, ...]
    demonstrations: tuple[torch.Tensor, ...]
    registered: bool
    family: str
    left_out: int = 0
    teachers: tuple[TopTokens, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """The queries, texts and draws of demonstrations of a task, before any hidden state is computed."""

    name: str
    queries: tuple[Encoded, ...]
    texts: tuple[str, ...]
    draws: tuple[tuple[Example, ...], ...]
    registered: bool
    family: str
    left_out: int

    @property
    def of_pictures(self) -> bool:
        """Whether the task's examples are about images."""
        return any(map(have_pictures, self.draws))


def builtin_pool(
    recipe: EpisodeRecipe, seed: int, registered: Collection[str] = ()
) -> tuple[list[BuiltinTask], list[BuiltinTask]]:
    """Return the built-in tasks to train on, and the validation tasks, by which the best weights are chosen.

    Neither has held-out combinations, tasks that the recipe excludes by name, or tasks of a registered name.

    Args:
        recipe: The settings of episodes.
        seed: The seed that chooses the validation tasks, and the tasks of a family that has too many.
        registered: The names of the registered tasks.
    """
    if recipe.builtin == "none":
        return [], []
    if recipe.builtin == "dense":
        every = list(dense_tasks())
    else:
        every = [task for task in map(builtin_task, builtin_names()) if not task.held_out]
    candidates = [
        task
        for task in every
        if task.name not in registered and not any(fnmatchcase(task.name, item) for item in recipe.builtin_exclude)
    ]
    candidates = _thinned(candidates, recipe.per_family, seed)
    order = sorted(task.name for task in candidates)
    random.Random(f"icmlora validation tasks {seed}").shuffle(order)
    validation = set(order[: min(recipe.validation_tasks, len(order) // 4)])
    return (
        [task for task in candidates if task.name not in validation],
        [task for task in candidates if task.name in validation],
    )


def _thinned(tasks: Sequence[BuiltinTask], most: int | None, seed: int) -> list[BuiltinTask]:
    """Return at most ``most`` tasks of each family, those of the curated catalogue first; None returns all."""
    if most is None:
        return list(tasks)
    curated, chosen = set(builtin_names()), set[str]()
    for family in dict.fromkeys(task.family for task in tasks):
        names = [task.name for task in tasks if task.family == family]
        random.Random(f"icmlora family {family} {seed}").shuffle(names)
        names.sort(key=lambda name: name not in curated)
        chosen |= set(names[:most])
    return [task for task in tasks if task.name in chosen]


def read_tasks(
    registered: Sequence[Task],
    builtin: Sequence[BuiltinTask],
    reader: VectorReader,
    recipe: TrainRecipe,
    episodes: EpisodeRecipe,
    *,
    on_progress: OnProgress = silent,
) -> list[EpisodeTask]:
    """Return tasks with their queries encoded and their supports read, registered tasks first.

    The states are those of all tokens, or pooled into one, as the recipe says.

    Args:
        registered: The users' tasks; only their training examples are used.
        builtin: The built-in tasks.
        reader: Reads hidden states from the base.
        recipe: How the generator is trained.
        episodes: The recipe's settings of episodes.
        on_progress: Called after each batch of prompts.
    """
    plans = [_registered_plan(task, reader, recipe, episodes) for task in registered]
    plans += [_builtin_plan(task, reader, recipe, episodes) for task in builtin]
    prompts = [reader.text_states(text) for plan in plans for text in plan.texts]
    pooled = recipe.data.vectors.pooling == "mean"
    prompt_of = reader.question_state if pooled else reader.examples_states
    prompts += [prompt_of(draw) for plan in plans if not plan.of_pictures for draw in plan.draws]

    def report(done: int) -> None:
        on_progress(Progress("vectors", "of episodes", done, len(prompts)))

    states = iter(reader.read_all(prompts, on_batch=report))
    texts = [tuple(next(states) for _ in plan.texts) for plan in plans]
    draws = [
        tuple(reader.read_examples(draw) if plan.of_pictures else next(states) for draw in plan.draws) for plan in plans
    ]
    if pooled:
        texts = [tuple(item.mean(0, keepdim=True) for item in states_of_task) for states_of_task in texts]
    return [
        EpisodeTask(plan.name, plan.queries, of_texts, of_draws, plan.registered, plan.family, plan.left_out)
        for plan, of_texts, of_draws in zip(plans, texts, draws, strict=True)
    ]


def _registered_plan(task: Task, reader: VectorReader, recipe: TrainRecipe, episodes: EpisodeRecipe) -> _Plan:
    rng = random.Random(f"icmlora episodes {task.name} {recipe.seed}")
    examples = task.examples("train")
    rows = encode_task(reader.loaded.family, task, examples)
    queries = _short(rows, episodes.max_tokens)
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
    """Return a description as it is, without its capital and full stop, and as a request that begins with "Please"."""
    bare = text.rstrip(".")
    lower = bare[0].lower() + bare[1:] if len(bare) > 1 and not bare[1].isupper() else bare
    forms = (text, lower) if text.endswith("?") else (text, lower, f"Please {lower}.")
    return tuple(form for form in forms if len(form) <= MAX_TEXT)


def _builtin_plan(task: BuiltinTask, reader: VectorReader, recipe: TrainRecipe, episodes: EpisodeRecipe) -> _Plan:
    rng = random.Random(f"icmlora episodes {task.name} {recipe.seed}")
    examples = learnable(task, episodes, recipe.seed)
    templates = [PromptTemplate("plain", item.prompt, item.answer) for item in episodes.templates]
    rows = [encode(reader.loaded.family, rng.choice(templates), example) for example in examples]
    queries = _short(rows, episodes.max_tokens)
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
    """Return the examples of a built-in task that episodes may use: those of the part ``train``, by the usual split.

    A task with so few examples that none is of that part gives one example.

    Args:
        task: The built-in task.
        recipe: The settings of episodes, which say how many examples are drawn.
        seed: The seed of the draw.
    """
    drawn = task.examples(recipe.builtin_examples, seed)
    return tuple(item for item in drawn if part_of(item.input) == "train") or drawn[:1]


def _short(rows: Sequence[Encoded], max_tokens: int) -> tuple[Encoded, ...]:
    """Return the rows of at most ``max_tokens`` tokens, or the shortest one where all are longer."""
    short = tuple(row for row in rows if row.length <= max_tokens)
    return short or (min(rows, key=lambda row: row.length),)


def _draws(examples: Sequence[Example], recipe: TrainRecipe, rng: random.Random) -> tuple[tuple[Example, ...], ...]:
    """Return draws of two or more demonstrations each, at most one more than the recipe's shots."""
    if len(examples) < 2:
        return ()
    most = min(recipe.data.vectors.shots + 1, len(examples))
    counts = [rng.randint(max(2, most - 3), most) for _ in range(recipe.data.vectors.draws)]
    return tuple(tuple(rng.sample(list(examples), count)) for count in counts)
