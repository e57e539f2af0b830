"""Episodes: a support becomes an adapter, and the loss on queries is taken through the frozen base.

Every row of a batch has its own task, support and adapter (``lm.row_cores``). The recipe's seed and the number of the
step alone decide what a step trains on, so that a resumed training goes on exactly.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.generator.conditions import ConditionSpace, Support
from icmlora_cli.generator.interface import Network, TrainStep
from icmlora_cli.generator.networks import CVAE, contrast, kl_divergence, sample
from icmlora_cli.generator.terms import draw_support, pick
from icmlora_cli.lm.batching import IGNORED, answer_log_probs, of_logits, scoring_batches
from icmlora_cli.lm.checkpointing import checkpoint_blocks
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.teacher import TopTokens, divergences
from icmlora_cli.workflows.train.episode_tasks import EpisodeTask

POOL = 32  # steps whose rows are drawn together and sorted by length, so that little is padding


@dataclass(frozen=True)
class _Seen:
    """What the base says of rows.

    Args:
        total: The negative log-likelihood of each answer, in nats, fp32 [B].
        nll: The same as a mean over the answer's tokens, fp32 [B].
        exact: Whether each answer is exactly the model's first choice, bool [B].
        taught: KL(harvested || generated) over each answer, in nats, fp32 [B]; empty where nothing is distilled.
    """

    total: torch.Tensor
    nll: torch.Tensor
    exact: torch.Tensor
    taught: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence["_Seen"]) -> "_Seen":
        """Return what several passes saw, one after the other, without its graph."""
        columns = zip(*((part.total, part.nll, part.exact, part.taught) for part in parts), strict=True)
        return cls(*(torch.cat(column).detach() for column in columns))


LossOf = Callable[[slice, _Seen], torch.Tensor]
"""The loss of the rows of a slice, whose sum is minimised, from what is seen of them."""


@dataclass(frozen=True)
class _Swap:
    """Which row's adapter each row is compared with, in the contrast of adapters.

    Args:
        partners: The index of a row of another task for each row, int64 [B]; its own index where there is none.
        shares: The share of each row in the mean, fp32 [B]; 0 for rows without a partner.
    """

    partners: torch.Tensor
    shares: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int]], rng: torch.Generator, device: torch.device) -> "_Swap | None":
        """Draw a partner for each row, or return None where all rows are of one task."""
        others = [[at for at, (other, _) in enumerate(rows) if other != own] for own, _ in rows]
        count = sum(map(bool, others))
        if not count:
            return None
        partners = [items[pick(len(items), rng)] if items else at for at, items in enumerate(others)]
        shares = [1.0 / count if items else 0.0 for items in others]
        return cls(torch.tensor(partners, device=device), torch.tensor(shares, device=device))


@dataclass
class EpisodeTerm:
    """The loss of episodes and of the contrast between tasks, as a term of ``generator.fit``.

    Args:
        loaded: The frozen base.
        cores: Applies a core to each module of the base, row by row.
        scale: The factor of each module's normalised cores, fp32 [modules].
        tasks: The tasks that episodes draw from.
        space: Makes supports of hidden states.
        recipe: How the generator is trained.
        episodes: The recipe's settings of episodes.
        process: The index of this process and the number of all; each draws other rows.
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

    def __post_init__(self) -> None:
        """Turn on gradient checkpointing where the recipe asks for it."""
        if self.episodes.gradient_checkpointing:
            checkpoint_blocks(self.loaded.model)

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """Add the gradients of the contrastive loss, and in the last stage those of a batch of episodes."""
        assert isinstance(model, CVAE)
        values: dict[str, torch.Tensor] = {}
        learned = next(model.reader.parameters(), None) is not None
        if self.episodes.contrast_weight and len(self.tasks) > 1 and learned:
            values["contrast"] = self._contrast(model, rng)
        if self.episodes.weight and train_step.stage == len(model.stages(self.recipe.optimiser)) - 1:
            values |= self._episodes(model, train_step.step, rng)
        return values

    def _contrast(self, model: CVAE, rng: torch.Generator) -> torch.Tensor:
        recipe = self.episodes
        order = torch.randperm(len(self.tasks), generator=rng)[: recipe.contrast_tasks].tolist()
        supports = [self._slot(self.tasks[index], rng) for index in order for _ in range(2)]
        loss = contrast(model.reader(self._disturbed(supports, rng)))
        (recipe.contrast_weight * loss).backward()
        return loss.detach()

    def _slot(self, task: EpisodeTask, rng: torch.Generator) -> Support:
        """Return a support that has a text in two of three cases, and demonstrations otherwise."""
        demonstrated = bool(task.demonstrations) and pick(3, rng) == 0
        readings = task.demonstrations if demonstrated else task.texts
        reading = readings[pick(len(readings), rng)]
        return self.space.support(None, reading) if demonstrated else self.space.support(reading, None)

    def _disturbed(self, supports: Sequence[Support], rng: torch.Generator) -> Support:
        support = Support.stack(supports).disturbed(
            noise=self.recipe.data.condition_noise, drop=self.recipe.data.token_dropout, rng=rng
        )
        return support.to(self.loaded.device)

    def _episodes(self, model: CVAE, step: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
        recipe = self.episodes
        rows = self._rows(step)
        supports = [
            draw_support(self.tasks[index].texts, self.tasks[index].demonstrations, self.space, rng)
            for index, _ in rows
        ]
        prior = model.prior(c := model.read(self._disturbed(supports, rng)))
        z = sample(prior, rng)
        cores = model.decode(z, c) * self.scale[:, None, None]
        values, gradient = self._losses(rows, cores.detach(), rng)
        kl = kl_divergence(prior, (torch.zeros_like(prior[0]), torch.zeros_like(prior[1])))
        torch.autograd.backward([cores, recipe.prior_weight * kl], [gradient, torch.ones_like(kl)])
        return values | {"prior": kl.detach()}

    def _losses(
        self, rows: Sequence[tuple[int, int]], cores: torch.Tensor, rng: torch.Generator
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the losses on queries by name, and the gradient of their weighted sum in the cores."""
        recipe = self.episodes
        queries = [self.tasks[index].queries[query] for index, query in rows]
        lengths = [len(item.answer_ids) for item in queries]
        teachers = [self._teacher(index, query) for index, query in rows]
        taught = sum(length for length, teacher in zip(lengths, teachers, strict=True) if teacher is not None)
        swap = _Swap.of(rows, rng, self.loaded.device) if recipe.swap_weight else None
        if swap is not None:
            swapped, away = self._through_base(queries, cores[swap.partners], lambda _, seen: seen.nll)

        def hinges(part: slice, nll: torch.Tensor) -> torch.Tensor:
            return torch.relu(recipe.swap_margin + nll - swapped.nll[part])

        def weighted(part: slice, seen: _Seen) -> torch.Tensor:
            loss = recipe.weight * (seen.total.sum() / sum(lengths))
            if swap is not None:
                loss = loss + recipe.swap_weight * (swap.shares[part] * hinges(part, seen.nll)).sum()
            return loss + recipe.distill_weight * seen.taught.sum() / taught if taught else loss

        own, gradient = self._through_base(queries, cores, weighted, teachers if taught else None)
        values = {"nll": own.total.sum() / sum(lengths), "exact": own.exact.float().mean()}
        if swap is not None:
            hinge = hinges(slice(None), own.nll)
            active = recipe.swap_weight * swap.shares * (hinge > 0)
            gradient.index_add_(0, swap.partners, -active[:, None, None, None] * away)
            values["swap"] = (swap.shares * hinge).sum()
        if taught:
            values["distill"] = own.taught.sum() / taught
        return values, gradient

    def _teacher(self, index: int, query: int) -> TopTokens | None:
        known = self.tasks[index].teachers if self.episodes.distill_weight else ()
        return known[query] if query < len(known) else None

    def _through_base(
        self,
        queries: Sequence[Encoded],
        cores: torch.Tensor,
        loss_of: LossOf,
        teachers: Sequence[TopTokens | None] | None = None,
    ) -> tuple[_Seen, torch.Tensor]:
        """Return what the base says of the queries with the cores, and the gradient of a loss in the cores.

        When memory does not suffice, the rows of a pass are halved, for this and all later steps.

        Args:
            queries: The query of each row.
            cores: The core of each module for each row.
            loss_of: The loss.
            teachers: What harvested adapters say of each row's answer; None leaves the divergence from them out.
        """
        micro_batch = min(self.episodes.micro_batch or len(queries), len(queries))
        return self.loaded.micro_batch.whole(
            "episodes", micro_batch, lambda size: self._pass(queries, cores, loss_of, teachers, size)
        )

    def _pass(
        self,
        queries: Sequence[Encoded],
        cores: torch.Tensor,
        loss_of: LossOf,
        teachers: Sequence[TopTokens | None] | None,
        size: int,
    ) -> tuple[_Seen, torch.Tensor]:
        parts, gradient = list[_Seen](), torch.zeros_like(cores)
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            leaf = cores[part].requires_grad_()
            batch = self.loaded.batch(queries[part])
            with self.cores.applied(leaf):
                logits = batch.logits(self.loaded.model)
                log_probs, right = of_logits(logits, batch)
                total = -log_probs.sum(1)
                taught = total.new_empty(0) if teachers is None else divergences(logits, teachers[part], batch)
                seen = _Seen(total, total / (batch.labels != IGNORED).sum(1), right.all(1), taught)
                # while the cores are applied, since checkpointed blocks run again
                (gradient[part],) = torch.autograd.grad(loss_of(part, seen).sum(), leaf)
            parts.append(_Seen.joined([seen]))
        return _Seen.joined(parts), gradient

    def _rows(self, step: int) -> list[tuple[int, int]]:
        """Return the pairs of a task's index and a query's index that a step of the stage takes."""
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
        of_users = count if not others else 0 if not users else round(recipe.registered_share * count)
        drawn = _even(users, of_users, rng) + self._by_family(others, count - of_users, rng)
        rows = [(index, rng.randrange(len(self.tasks[index].queries))) for index in drawn]
        rows.sort(key=lambda row: self.tasks[row[0]].queries[row[1]].length)
        batches = [rows[start : start + recipe.rows] for start in range(0, count, recipe.rows)]
        rng.shuffle(batches)
        return batches

    def _by_family(self, items: Sequence[int], count: int, rng: random.Random) -> list[int]:
        """Return ``count`` tasks: a family is as likely as the square root of its size, and its tasks equally."""
        families: dict[str, list[int]] = {}
        for index in items:
            families.setdefault(self.tasks[index].family, []).append(index)
        names = list(families)
        weights = [math.sqrt(len(families[name])) for name in names]
        return [rng.choice(families[name]) for name in rng.choices(names, weights, k=count)] if names else []


def _even(items: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """Return ``count`` items; how often two of them are drawn differs by one at most."""
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += rng.sample(list(items), min(len(items), count - len(drawn)))
    return drawn


@dataclass(frozen=True)
class TaskScore:
    """The figures of a validation task, means over its examples.

    Args:
        nll: The negative log-likelihood of an answer, nats per token.
        exact: The share of the answers that greedy decoding writes exactly, 0 to 1.
        probability: The geometric mean of the probabilities of an answer's tokens, 0 to 1.
    """

    nll: float
    exact: float
    probability: float


@dataclass(frozen=True)
class TaskValidation:
    """Scores a generator on tasks that it never trains on, with adapters made from their first descriptions.

    The score of an answer is the geometric mean of its tokens' probabilities. The mean NLL would not do: the few tasks
    that are out of reach dominate it, and on them it rises with confidence while all other tasks still improve.

    Args:
        term: The loss term of the training, whose base, cores and space are used.
        tasks: The validation tasks.
        examples: How many examples of each task are scored, at most.
    """

    term: EpisodeTerm
    tasks: Sequence[EpisodeTask]
    examples: int

    def __call__(self, model: Network) -> float:
        """Return the mean of the tasks' answer probabilities, between 0 and 1; each task counts the same."""
        scores = self.scores(model)
        return sum(item.probability for item in scores.values()) / len(scores)

    def scores(self, model: Network) -> Mapping[str, "TaskScore"]:
        """Return the figures of each task, by its name."""
        term = self.term
        supports = [term.space.support(task.texts[0], None) for task in self.tasks]
        c = model.read(Support.stack(supports).to(term.loaded.device))
        return self.of_cores(model.decode(model.sample_latent(c, None), c) * term.scale[:, None, None])

    def of_cores(self, cores: torch.Tensor) -> Mapping[str, "TaskScore"]:
        """Return the figures of each task with a given adapter, by its name.

        Args:
            cores: The core of each module for each task, fp32 [tasks, modules, R, R].
        """
        term = self.term
        rows = [(index, query) for index, task in enumerate(self.tasks) for query in task.queries[: self.examples]]
        sums = [[0.0, 0.0, 0.0] for _ in self.tasks]
        for indices in scoring_batches([row.length for _, row in rows], batch_size=16):
            for part, seen in term.loaded.micro_batch.parts(
                "scoring", [rows[at] for at in indices], self._figures(cores)
            ):
                for (owner, _), (nll, exact) in zip(part, seen, strict=True):
                    for figure, value in enumerate((nll, exact, math.exp(-nll))):
                        sums[owner][figure] += value
        counts = [min(self.examples, len(task.queries)) for task in self.tasks]
        return {
            task.name: TaskScore(*(value / counts[index] for value in sums[index]))
            for index, task in enumerate(self.tasks)
        }

    def _figures(self, cores: torch.Tensor) -> Callable[[Sequence[tuple[int, Encoded]]], list[list[float]]]:
        """Return a function that gives the NLL of each answer, nats per token, and 1.0 where it is exact, else 0.0."""
        loaded, applied = self.term.loaded, self.term.cores.applied

        def figures(rows: Sequence[tuple[int, Encoded]]) -> list[list[float]]:
            batch = loaded.batch([row for _, row in rows])
            with applied(cores[[owner for owner, _ in rows]]):
                log_probs, right = answer_log_probs(loaded.model, batch)
            means = -log_probs.sum(1) / (batch.labels != IGNORED).sum(1)
            values: list[list[float]] = torch.stack([means, right.all(1).float()], dim=1).tolist()
            return values

        return figures
