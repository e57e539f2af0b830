"""Scores many cores on a few examples, and trains cores on them, with examples that are left out as judges.

All cores of a step go through the frozen base in one forward pass (see ``lm.row_cores``), so that the folds of a
cross-validation are trained side by side.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from icmlora_cli.lm.batching import answer_log_probs
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.weights.codec import Codec

ROWS = 64  # rows of a forward pass without gradients


@dataclass(frozen=True)
class TuningRecipe:
    """How cores are trained on a few examples; the rate is constant after its warm-up, so that any step can be the end.

    Args:
        steps: The number of optimizer steps at most.
        learning_rate: The rate of Adam after the warm-up.
        warmup: The number of steps in which the rate rises to it.
        batch_size: The number of examples that each fold sees in a step; fewer where it has fewer.
        judge_every: The number of steps between two scorings of the examples that were left out.
        patience: The number of steps without a lower held-out NLL after which the training ends.
        narrow_at: The numbers of steps, judged ones, after which the start with the highest held-out NLL is given up
            (successive halving, Jamieson & Talwalkar 2016, arXiv 1502.07943).
        worse: By which factor that must be above the lowest, for a start to be given up.
        seed: The seed of the order of the examples.
    """

    steps: int = 32
    learning_rate: float = 0.02
    warmup: int = 4
    batch_size: int = 8
    judge_every: int = 4
    patience: int = 12
    narrow_at: tuple[int, ...] = (12, 20)
    worse: float = 1.1
    seed: int = 0


@dataclass(frozen=True)
class TunedCores:
    """Cores as they were after the judged step at which the held-out NLL was lowest.

    Args:
        cores: The cores, fp32 [folds, modules, R, R] on the CPU.
        steps: The number of steps after which they were so.
        held_out: The mean NLL of the examples that were left out, under these cores, nats per token.
        curve: For each judged step, how many steps had been taken, and the held-out NLL.
    """

    cores: torch.Tensor
    steps: int
    held_out: float
    curve: tuple[tuple[int, float], ...]


class CoreBase:
    """A frozen base to whose modules cores of a codec are added, a core a row.

    Args:
        loaded: The base.
        codec: The codec of the cores.

    Raises:
        CorruptFileError: If the codec is of another base.
    """

    def __init__(self, loaded: LoadedBase, codec: Codec) -> None:
        """Find the codec's modules in the base."""
        self.loaded, self.codec = loaded, codec
        names = [item.name for item in codec.layout.modules]
        self.row_cores = RowCores(loaded.model, names, codec.left, codec.right)

    def losses(self, rows: Sequence[Encoded], cores: torch.Tensor) -> torch.Tensor:
        """Return the NLL of each row's answer in nats per token, fp32 [rows], with gradients to the cores.

        Args:
            rows: The examples.
            cores: The core of each row, fp32 [rows, modules, R, R], or one for all, [1, modules, R, R].
        """
        batch = self.loaded.batch(rows)
        with self.row_cores.applied(cores):
            log_probs, _ = answer_log_probs(self.loaded.model, batch)
        counts = torch.tensor([len(row.answer_ids) for row in rows], device=log_probs.device)
        return -log_probs.sum(1) / counts

    @torch.no_grad()
    def scores(self, rows: Sequence[Encoded], cores: torch.Tensor) -> torch.Tensor:
        """Return the NLL of each row under each core in nats per token, fp32 [cores, rows] on the CPU.

        Args:
            rows: The examples.
            cores: The cores, fp32 [cores, modules, R, R].
        """
        pairs = [(at, index) for index in range(len(rows)) for at in range(len(cores))]
        pairs.sort(key=lambda pair: rows[pair[1]].length)
        table = torch.zeros(len(cores), len(rows))
        for start in range(0, len(pairs), ROWS):
            part = pairs[start : start + ROWS]
            for pairs_of, losses in self.loaded.micro_batch.parts(
                "scoring", part, lambda few: self._of_pairs(rows, cores, few)
            ):
                at, index = (torch.tensor(side) for side in zip(*pairs_of, strict=True))
                table[at, index] = losses
        return table

    def _of_pairs(self, rows: Sequence[Encoded], cores: torch.Tensor, pairs: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Return the NLL of each pair of a core's and a row's index, fp32 [pairs] on the CPU."""
        own = cores[[at for at, _ in pairs]].to(self.loaded.device)
        return self.losses([rows[index] for _, index in pairs], own).float().cpu()


@dataclass(frozen=True)
class CoreFolds:
    """The folds that are trained from one start, side by side.

    Args:
        start: The core that each fold starts from, fp32 [folds, modules, R, R].
        left_out: The indices of the rows that each fold is not trained on.
        judges: The indices of the rows among these on which the fold is judged; empty for a fold that judges nothing.
        rate: The factor by which the recipe's learning rate is multiplied.
    """

    start: torch.Tensor
    left_out: Sequence[frozenset[int]]
    judges: Sequence[Sequence[int]]
    rate: float = 1.0


def tune_cores(
    base: CoreBase,
    rows: Sequence[Encoded],
    starts: Sequence[CoreFolds],
    recipe: TuningRecipe,
    *,
    enough: Callable[[int], bool] = lambda step: False,
) -> list[TunedCores]:
    """Train one core a fold on all rows but those that the fold leaves out, all folds of all starts side by side.

    A start whose held-out NLL has not fallen for a while is not trained on, nor one that was given up for a better one.

    Args:
        base: The base with the codec of the cores.
        rows: The examples.
        starts: The folds of each start, at least one of which is judged.
        recipe: How to train.
        enough: Called with the number of steps that are done, before each step but the first; True ends the training.
    """
    courses = [_Course(base, rows, folds, recipe) for folds in starts]
    running, step = courses, 0
    while True:
        if step % recipe.judge_every == 0 or step == recipe.steps:
            for course in running:
                course.judge(step)
        if step in recipe.narrow_at and running:
            worst = max(running, key=lambda course: course.best.held_out)
            if worst.best.held_out > recipe.worse * min(course.best.held_out for course in running):
                running.remove(worst)
        running = [course for course in running if course.is_running(step)]
        if not running or step == recipe.steps or (step and enough(step)):
            break
        drawn = [course.draw() for course in running]
        count = sum(map(len, drawn))
        base.loaded.micro_batch.whole("tuning", count, partial(_gradient, base, rows, running, drawn))
        for course in running:
            course.step(step)
        step += 1
    if step % recipe.judge_every and step != recipe.steps:
        for course in running:
            course.judge(step)
    return [course.best for course in courses]


def _gradient(
    base: CoreBase,
    rows: Sequence[Encoded],
    courses: "Sequence[_Course]",
    drawn: Sequence[Sequence[tuple[int, int]]],
    size: int,
) -> None:
    """Put the gradient of a step into the cores of all courses, ``size`` rows a pass."""
    for course in courses:
        course.optimizer.zero_grad(set_to_none=True)
    every = [(course, fold, at) for course, own in zip(courses, drawn, strict=True) for fold, at in own]
    counts = Counter((id(course), fold) for course, fold, _ in every)
    shares = [1.0 / counts[id(course), fold] for course, fold, _ in every]  # each fold's own mean: they share no core
    for start in range(0, len(every), size):
        part = every[start : start + size]
        cores = torch.stack([course.cores[fold] for course, fold, _ in part])
        losses = base.losses([rows[at] for _, _, at in part], cores)
        (losses * torch.tensor(shares[start : start + size], device=losses.device)).sum().backward()


class _Course:
    """The training of the folds of one start."""

    def __init__(self, base: CoreBase, rows: Sequence[Encoded], folds: CoreFolds, recipe: TuningRecipe) -> None:
        self.base, self.rows, self.recipe = base, rows, recipe
        self.rate = folds.rate * recipe.learning_rate
        self.cores = torch.nn.Parameter(folds.start.detach().clone().to(base.loaded.device, torch.float32))
        self.optimizer = torch.optim.Adam([self.cores], lr=self.rate)
        shuffler = random.Random(recipe.seed)
        self.plans = [
            _batches([at for at in range(len(rows)) if at not in out], recipe, shuffler) for out in folds.left_out
        ]
        self.judged = [(fold, at) for fold, own in enumerate(folds.judges) for at in own]
        self.curve: list[tuple[int, float]] = []
        self.best = TunedCores(folds.start.detach().float().cpu(), 0, math.inf, ())

    def is_running(self, step: int) -> bool:
        """Return whether it is still worth a step: the held-out NLL was at its lowest not long ago."""
        return step - self.best.steps < self.recipe.patience

    def draw(self) -> list[tuple[int, int]]:
        """Return the fold and the row of each example of the next step."""
        return [(fold, at) for fold, plan in enumerate(self.plans) for at in next(plan)]

    def step(self, done: int) -> None:
        """Take a step by the gradients that are there."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, (done + 1) / self.recipe.warmup)
        self.optimizer.step()

    @torch.no_grad()
    def judge(self, step: int) -> None:
        """Score the folds on what they left out, and keep their cores if that is better than ever before."""
        total = 0.0
        for start in range(0, len(self.judged), ROWS):
            part = self.judged[start : start + ROWS]
            for _, losses in self.base.loaded.micro_batch.parts("scoring", part, self._losses):
                total += float(losses.double().sum())
        held_out = total / len(self.judged)
        self.curve.append((step, held_out))
        if held_out < self.best.held_out:
            self.best = TunedCores(self.cores.detach().cpu().clone(), step, held_out, ())
        self.best = replace(self.best, curve=tuple(self.curve))

    def _losses(self, part: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Return the NLL of each pair of a fold's and a row's index, fp32 [pairs] on the CPU: MPS has no float64."""
        own = self.cores[[fold for fold, _ in part]]
        return self.base.losses([self.rows[at] for _, at in part], own).cpu()


def _batches(indices: Sequence[int], recipe: TuningRecipe, shuffler: random.Random) -> Iterator[list[int]]:
    """Yield batches for ever: each pass over the indices is a shuffle, and what it leaves over opens the next."""
    size, waiting = min(recipe.batch_size, len(indices)), list[int]()
    while True:
        while len(waiting) < size:
            waiting += shuffler.sample(indices, len(indices))
        yield waiting[:size]
        waiting = waiting[size:]
