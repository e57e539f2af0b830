"""Episodes: a support becomes an adapter, and the loss on queries is taken through the frozen base.

Every row of a batch has its own task, support and adapter (``lm.row_cores``). What a step sees is decided by the
recipe's seed and the step's number alone, so that a resumed training goes on exactly.
"""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from icmlora_cli.config.recipes import EpisodeRecipe, TrainRecipe
from icmlora_cli.generator.conditions import ConditionSpace, Support
from icmlora_cli.generator.fit import draw_support, pick
from icmlora_cli.generator.interface import Moment, Network
from icmlora_cli.generator.networks import CVAE, contrast, kl_divergence, sample
from icmlora_cli.lm.batching import IGNORED, answer_log_probs, collate, scoring_batches
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded, encode, encode_task
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.builtin import BuiltinTask, builtin_names, builtin_task, dense_tasks, phrase
from icmlora_cli.registry.examples import Example
from icmlora_cli.registry.splits import part_of
from icmlora_cli.registry.task_record import PromptTemplate
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

POOL = 32  # steps whose rows are drawn together and sorted by length, so that little is padding


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
    """

    name: str
    queries: tuple[Encoded, ...]
    texts: tuple[torch.Tensor, ...]
    demonstrations: tuple[torch.Tensor, ...]
    registered: bool
    family: str


@dataclass(frozen=True)
class _Plan:
    """What is read and asked of a task, before any state is computed."""

    name: str
    queries: tuple[Encoded, ...]
    texts: tuple[str, ...]
    draws: tuple[tuple[Example, ...], ...]
    registered: bool
    family: str


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
    pooled = recipe.vectors.pooling == "mean"
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
        EpisodeTask(plan.name, plan.queries, text, shown, plan.registered, plan.family)
        for plan, text, shown in zip(plans, texts, draws, strict=True)
    ]


def _registered_plan(task: Task, reader: VectorReader, recipe: TrainRecipe) -> _Plan:
    rng = random.Random(f"icmlora episodes {task.name} {recipe.seed}")
    examples = task.examples("train")
    queries = _short(encode_task(reader.loaded.tokenizer, task, examples), recipe)
    texts = tuple(dict.fromkeys(form for text in task.descriptions for form in _forms(text)))
    return _Plan(
        task.name, queries, texts, _draws(examples, recipe, rng), registered=True, family=task.family or task.name
    )


def _forms(text: str) -> tuple[str, ...]:
    """Return a description as it is and as others would type it."""
    bare = text.rstrip(".")
    lower = bare[0].lower() + bare[1:] if len(bare) > 1 and not bare[1].isupper() else bare
    return (text, lower) if text.endswith("?") else (text, lower, f"Please {lower}.")


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
    most = min(recipe.vectors.shots + 1, len(examples))
    counts = [rng.randint(max(2, most - 3), most) for _ in range(recipe.vectors.draws)]
    return tuple(tuple(rng.sample(list(examples), count)) for count in counts)


@dataclass
class EpisodeTerm:
    """The loss of episodes, as a term of ``generator.fit``.

    Args:
        loaded: the frozen base.
        cores: puts cores on its modules.
        scale: fp32 [modules], what normalised cores are multiplied by.
        tasks: what is drawn from.
        space: makes supports.
        recipe: how.
        first: steps of the whole training before the stage of episodes.
        process: index of this process and number of all, each with rows of its own.
    """

    loaded: LoadedBase
    cores: RowCores
    scale: torch.Tensor
    tasks: Sequence[EpisodeTask]
    space: ConditionSpace
    recipe: TrainRecipe
    process: tuple[int, int] = (0, 1)
    _planned: dict[int, list[list[tuple[int, int]]]] = field(default_factory=dict, init=False)
    _micro: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        assert self.recipe.episodes is not None
        self._micro = min(self.recipe.episodes.micro_batch or self.recipe.episodes.rows, self.recipe.episodes.rows)
        if self.recipe.episodes.gradient_checkpointing:
            _checkpoint(self.loaded.model)

    def backward(self, model: Network, moment: Moment, source: torch.Generator) -> dict[str, float]:
        """Add the gradients of the contrastive loss, and in the last stage those of a batch of episodes."""
        assert isinstance(model, CVAE) and self.recipe.episodes is not None
        values: dict[str, float] = {}
        learned = next(model.reader.parameters(), None) is not None
        if self.recipe.episodes.contrast_weight and len(self.tasks) > 1 and learned:
            values["contrast"] = self._contrast(model, source)
        if moment.stage == len(model.stages(self.recipe)) - 1:
            values |= self._episodes(model, moment.step, source)
        return values

    def _contrast(self, model: CVAE, source: torch.Generator) -> float:
        recipe = self.recipe.episodes
        assert recipe is not None
        order = torch.randperm(len(self.tasks), generator=source)[: recipe.contrast_tasks].tolist()
        supports = [self._slot(self.tasks[index], source) for index in order for _ in range(2)]
        loss = contrast(model.read(self._disturbed(supports, source)))
        (recipe.contrast_weight * loss).backward()
        return float(loss.detach())

    def _slot(self, task: EpisodeTask, source: torch.Generator) -> Support:
        """Return a support of one slot: text in two of three cases."""
        shown = bool(task.demonstrations) and pick(3, source) == 0
        readings = task.demonstrations if shown else task.texts
        reading = readings[pick(len(readings), source)]
        return self.space.support(None, reading) if shown else self.space.support(reading, None)

    def _disturbed(self, supports: Sequence[Support], source: torch.Generator) -> Support:
        support = Support.stack(supports).disturbed(
            noise=self.recipe.condition_noise, drop=self.recipe.token_dropout, source=source
        )
        return support.to(self.loaded.device)

    def _episodes(self, model: CVAE, step: int, source: torch.Generator) -> dict[str, float]:
        recipe = self.recipe.episodes
        assert recipe is not None
        rows = self._rows(step)
        supports = [
            draw_support(self.tasks[own].texts, self.tasks[own].demonstrations, self.space, source) for own, _ in rows
        ]
        prior = model.prior(c := model.read(self._disturbed(supports, source)))
        z = sample(prior, source)
        cores = model.decode(z, c) * self.scale[:, None, None]
        queries = [self.tasks[own].queries[query] for own, query in rows]
        leaf = cores.detach().requires_grad_()
        loss, right = self._through_base(queries, leaf)
        kl = kl_divergence(prior, (torch.zeros_like(prior[0]), torch.zeros_like(prior[1])))
        assert leaf.grad is not None
        torch.autograd.backward([cores, recipe.prior_weight * kl], [recipe.weight * leaf.grad, torch.ones_like(kl)])
        return {"nll": loss, "exact": right, "prior": float(kl.detach())}

    def _through_base(self, queries: Sequence[Encoded], cores: torch.Tensor) -> tuple[float, float]:
        """Put the gradient of the mean answer NLL into ``cores.grad``; return that NLL and the share of exact answers.

        When memory does not suffice, the rows are halved, for this and all later steps.
        """
        while True:
            try:
                return self._pass(queries, cores)
            except torch.OutOfMemoryError:
                if self._micro == 1:
                    raise
            self._micro = (self._micro + 1) // 2
            cores.grad = None
            torch.cuda.empty_cache()  # now that no traceback holds the tensors

    def _pass(self, queries: Sequence[Encoded], cores: torch.Tensor) -> tuple[float, float]:
        answers = sum(len(item.answer_ids) for item in queries)
        total, exact = 0.0, 0
        for start in range(0, len(queries), self._micro):
            own = queries[start : start + self._micro]
            batch = collate(own, self.loaded.tokenizer.pad_token_id, self.loaded.device)
            with self.cores.applied(cores[start : start + self._micro]):
                log_probs, right = answer_log_probs(self.loaded.model, batch)
                loss = -log_probs.sum() / answers
                loss.backward()  # while the cores are on: checkpointed blocks run again
            total += float(loss.detach())
            exact += int(right.all(1).sum())
        return total, exact / len(queries)

    def _rows(self, step: int) -> list[tuple[int, int]]:
        """Return the (task, query) pairs of a step of the stage."""
        pool = step // POOL
        if pool not in self._planned:
            self._planned = {pool: self._plan(pool)}
        return self._planned[pool][step % POOL]

    def _plan(self, pool: int) -> list[list[tuple[int, int]]]:
        recipe = self.recipe.episodes
        assert recipe is not None
        rng = random.Random(f"icmlora episodes {self.recipe.seed} {self.process} {pool}")
        users = [index for index, task in enumerate(self.tasks) if task.registered]
        others = [index for index, task in enumerate(self.tasks) if not task.registered]
        count = recipe.rows * POOL
        mine = count if not others else 0 if not users else round(recipe.registered_share * count)
        drawn = _even(users, mine, rng) + self._by_family(others, count - mine, rng)
        rows = [(own, rng.randrange(len(self.tasks[own].queries))) for own in drawn]
        rows.sort(key=lambda row: self.tasks[row[0]].queries[row[1]].length)
        batches = [rows[start : start + recipe.rows] for start in range(0, count, recipe.rows)]
        rng.shuffle(batches)
        return batches

    def _by_family(self, items: Sequence[int], count: int, rng: random.Random) -> list[int]:
        """Return count items, a family as likely as the root of its size, its items equally likely."""
        families: dict[str, list[int]] = {}
        for index in items:
            families.setdefault(self.tasks[index].family, []).append(index)
        names = list(families)
        weights = [math.sqrt(len(families[name])) for name in names]
        return [rng.choice(families[name]) for name in rng.choices(names, weights, k=count)] if names else []


def _checkpoint(model: PreTrainedModel) -> None:
    """Let the blocks forget their activations and compute them again; they alone are in training mode."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # not its children, whose dropout stays off


def _even(items: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """Return count items, each as often as any other but for one."""
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += rng.sample(list(items), min(len(items), count - len(drawn)))
    return drawn


@dataclass(frozen=True)
class TaskValidation:
    """The mean NLL of tasks that training never sees, from their first description alone.

    Args:
        term: of the training, whose base and space are used.
        tasks: the validation tasks.
        examples: of each.
    """

    term: EpisodeTerm
    tasks: Sequence[EpisodeTask]
    examples: int

    def __call__(self, model: Network) -> float:
        """Return the mean over tasks of the mean NLL, nats per answer token."""
        scores = self.scores(model)
        return sum(nll for nll, _ in scores.values()) / len(scores)

    def scores(self, model: Network) -> Mapping[str, tuple[float, float]]:
        """Return each task's NLL and exact match."""
        term = self.term
        supports = [term.space.support(task.texts[0], None) for task in self.tasks]
        c = model.read(Support.stack(supports).to(term.loaded.device))
        cores = model.decode(model.sample_latent(c, None), c) * term.scale[:, None, None]
        rows = [(own, query) for own, task in enumerate(self.tasks) for query in task.queries[: self.examples]]
        nll, exact = [0.0] * len(self.tasks), [0] * len(self.tasks)
        for indices in scoring_batches([row.length for _, row in rows], batch_size=16):
            batch = collate(
                [rows[index][1] for index in indices], term.loaded.tokenizer.pad_token_id, term.loaded.device
            )
            owners = [rows[index][0] for index in indices]
            with term.cores.applied(cores[owners]):
                log_probs, right = answer_log_probs(term.loaded.model, batch)
            means = -log_probs.sum(1) / (batch.labels != IGNORED).sum(1)
            for at, own in enumerate(owners):
                nll[own] += float(means[at])
                exact[own] += int(right[at].all())
        counts = [min(self.examples, len(task.queries)) for task in self.tasks]
        return {task.name: (nll[own] / counts[own], exact[own] / counts[own]) for own, task in enumerate(self.tasks)}
