"""Episodes: a support becomes an adapter, and the loss on queries is taken through the frozen base.

Every row of a batch has its own task, support and adapter (``lm.row_cores``). What a step sees is decided by the
recipe's seed and the step's number alone, so that a resumed training goes on exactly.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.generator.conditions import ConditionSpace, Support
from icmlora_cli.generator.interface import Network, TrainStep
from icmlora_cli.generator.networks import CVAE, contrast, kl_divergence, sample
from icmlora_cli.generator.terms import draw_support, pick
from icmlora_cli.lm.batching import IGNORED, answer_log_probs, collate, scoring_batches
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.workflows.train.episode_tasks import EpisodeTask

POOL = 32  # steps whose rows are drawn together and sorted by length, so that little is padding


@dataclass
class EpisodeTerm:
    """The loss of episodes, as a term of ``generator.fit``.

    Args:
        loaded: the frozen base.
        cores: puts cores on its modules.
        scale: fp32 [modules], what normalised cores are multiplied by.
        tasks: what is drawn from.
        space: makes supports.
        recipe: how the generator is trained.
        episodes: its settings of episodes.
        process: index of this process and number of all, each with rows of its own.
    """

    loaded: LoadedBase
    cores: RowCores
    scale: torch.Tensor
    tasks: Sequence[EpisodeTask]
    space: ConditionSpace
    recipe: TrainRecipe
    episodes: EpisodeRecipe
    process: tuple[int, int] = (0, 1)
    _planned: dict[int, list[list[tuple[int, int]]]] = field(default_factory=dict, init=False)
    _micro: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Fix the rows of a pass, and turn on gradient checkpointing where the recipe asks for it."""
        self._micro = min(self.episodes.micro_batch or self.episodes.rows, self.episodes.rows)
        if self.episodes.gradient_checkpointing:
            _checkpoint(self.loaded.model)

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, float]:
        """Add the gradients of the contrastive loss, and in the last stage those of a batch of episodes."""
        assert isinstance(model, CVAE)
        values: dict[str, float] = {}
        learned = next(model.reader.parameters(), None) is not None
        if self.episodes.contrast_weight and len(self.tasks) > 1 and learned:
            values["contrast"] = self._contrast(model, rng)
        if self.episodes.weight and train_step.stage == len(model.stages(self.recipe.optimiser)) - 1:
            values |= self._episodes(model, train_step.step, rng)
        return values

    def _contrast(self, model: CVAE, rng: torch.Generator) -> float:
        recipe = self.episodes
        order = torch.randperm(len(self.tasks), generator=rng)[: recipe.contrast_tasks].tolist()
        supports = [self._slot(self.tasks[index], rng) for index in order for _ in range(2)]
        loss = contrast(model.reader(self._disturbed(supports, rng)))
        (recipe.contrast_weight * loss).backward()
        return float(loss.detach())

    def _slot(self, task: EpisodeTask, rng: torch.Generator) -> Support:
        """Return a support of one slot: text in two of three cases."""
        shown = bool(task.demonstrations) and pick(3, rng) == 0
        readings = task.demonstrations if shown else task.texts
        reading = readings[pick(len(readings), rng)]
        return self.space.support(None, reading) if shown else self.space.support(reading, None)

    def _disturbed(self, supports: Sequence[Support], rng: torch.Generator) -> Support:
        support = Support.stack(supports).disturbed(
            noise=self.recipe.data.condition_noise, drop=self.recipe.data.token_dropout, rng=rng
        )
        return support.to(self.loaded.device)

    def _episodes(self, model: CVAE, step: int, rng: torch.Generator) -> dict[str, float]:
        recipe = self.episodes
        rows = self._rows(step)
        supports = [
            draw_support(self.tasks[own].texts, self.tasks[own].demonstrations, self.space, rng) for own, _ in rows
        ]
        prior = model.prior(c := model.read(self._disturbed(supports, rng)))
        z = sample(prior, rng)
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
        recipe = self.episodes
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
class TaskScore:
    """Figures of a validation task.

    Args:
        nll: nats per answer token.
        exact: share of the answers that are wholly right.
        probability: of an answer, the geometric mean over its tokens.
    """

    nll: float
    exact: float
    probability: float


@dataclass(frozen=True)
class TaskValidation:
    """How likely the answers of tasks are that training never sees, from their first description alone.

    Of an answer counts the geometric mean of its tokens' probabilities: the mean NLL would be that of the few tasks
    that are out of reach, on which it rises with confidence while all others still improve.

    Args:
        term: of the training, whose base and space are used.
        tasks: the validation tasks.
        examples: of each.
    """

    term: EpisodeTerm
    tasks: Sequence[EpisodeTask]
    examples: int

    def __call__(self, model: Network) -> float:
        """Return the mean probability of the answers, each task as likely; between 0 and 1."""
        scores = self.scores(model)
        return sum(item.probability for item in scores.values()) / len(scores)

    def scores(self, model: Network) -> Mapping[str, "TaskScore"]:
        """Return each task's figures, means over its examples."""
        term = self.term
        supports = [term.space.support(task.texts[0], None) for task in self.tasks]
        c = model.read(Support.stack(supports).to(term.loaded.device))
        cores = model.decode(model.sample_latent(c, None), c) * term.scale[:, None, None]
        rows = [(own, query) for own, task in enumerate(self.tasks) for query in task.queries[: self.examples]]
        sums = [[0.0, 0.0, 0.0] for _ in self.tasks]
        for indices in scoring_batches([row.length for _, row in rows], batch_size=16):
            batch = collate(
                [rows[index][1] for index in indices], term.loaded.tokenizer.pad_token_id, term.loaded.device
            )
            owners = [rows[index][0] for index in indices]
            with term.cores.applied(cores[owners]):
                log_probs, right = answer_log_probs(term.loaded.model, batch)
            means = -log_probs.sum(1) / (batch.labels != IGNORED).sum(1)
            for at, own in enumerate(owners):
                nll = float(means[at])
                for place, value in enumerate((nll, float(right[at].all()), math.exp(-nll))):
                    sums[own][place] += value
        counts = [min(self.examples, len(task.queries)) for task in self.tasks]
        return {
            task.name: TaskScore(*(value / counts[own] for value in sums[own])) for own, task in enumerate(self.tasks)
        }
