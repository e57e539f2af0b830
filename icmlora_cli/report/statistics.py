"""Bootstrap intervals and paired tests over examples and tasks, seeded so that they repeat exactly.

Intervals are percentile bootstrap intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
13). All methods of a task are resampled with the same indices, so differences and ratios between methods are paired.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from icmlora_cli.report.result import Figure
from icmlora_cli.tasks.detection import METRICS, Marks, average_precisions, mean_average_precision

Array = NDArray[np.float64]
LEVELS = (2.5, 97.5)  # per cent: the quantiles that bound an interval


def _stream(*parts: object) -> np.random.Generator:
    """Return a random number generator that the parts alone decide, such as a seed and a task's name."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _draws(count: int, task: str, resamples: int, seed: int) -> NDArray[np.int64]:
    """Return which of a task's examples each resample has, [resamples, examples]."""
    return _stream(seed, task, count).integers(count, size=(resamples, count))


@lru_cache(maxsize=1024)
def _precisions(matches: Marks, task: str, resamples: int, seed: int) -> Array:
    """Return the average precisions of each resample, [resamples, thresholds], which several metrics are made of."""
    return average_precisions(matches, _draws(len(matches), task, resamples, seed))


def _finish(metric: str, ratios: Array) -> Array:
    """Return the values of a metric from its ratios; those of perplexity are still to be exponentiated."""
    finished: Array = np.exp(ratios) if metric == "perplexity" else ratios
    return finished


@dataclass(frozen=True)
class Scored:
    """A metric of one method on one task, example by example.

    Its value is sum(numerators) / sum(denominators), or the exponential of that ratio for ``perplexity``. A mean
    average precision is that of all images together, and no mean over images: it comes from the matches.

    Args:
        metric: the metric's name.
        numerators: a number for each example: 0 or 1 for exact match, nats for perplexity, bits for bits per character.
        denominators: a number for each example: 1 for exact match, tokens for perplexity, characters for bits per
            character.
        matches: of a mean average precision, what was found in each image; the numerators are then each image's own.
    """

    metric: str
    numerators: tuple[float, ...]
    denominators: tuple[float, ...]
    matches: Marks = ()

    @property
    def value(self) -> float:
        """The metric's value over all examples."""
        if self.matches:
            return mean_average_precision(self.matches, self.metric)
        ratio = np.array([sum(self.numerators) / sum(self.denominators)])
        return float(_finish(self.metric, ratio)[0])

    def resampled(self, task: str, *, resamples: int, seed: int) -> Array:
        """Return the metric's value for each of many resamples of the examples, fp64 [resamples].

        Args:
            task: the task's name; with the seed and the number of examples it decides which examples are drawn, so that
                all methods of a task are resampled alike.
            resamples: how many resamples are drawn.
            seed: the seed of the draws.
        """
        if self.matches:
            precisions = _precisions(self.matches, task, resamples, seed)
            means: Array = precisions[:, METRICS[self.metric]].mean(1)
            return means
        indices = _draws(len(self.numerators), task, resamples, seed)
        above = np.asarray(self.numerators)[indices].sum(1)
        below = np.asarray(self.denominators)[indices].sum(1)
        return _finish(self.metric, above / below)

    def each(self) -> Array:
        """Return the ratio of each example, without any exponential, fp64 [examples]."""
        values: Array = np.asarray(self.numerators) / np.asarray(self.denominators)
        return values


def interval(value: float, resampled: Array) -> Figure:
    """Return a value with the 95 % percentile interval of its resamples; those that are not finite are left out."""
    finite = resampled[np.isfinite(resampled)]
    low, high = np.percentile(finite, LEVELS) if finite.size else (value, value)
    return Figure(value=value, low=float(low), high=float(high))


@dataclass(frozen=True)
class Resampler:
    """Resamples tasks, and examples within them, in the same way for every method of a part.

    Args:
        resamples: how many resamples are drawn for an interval.
        seed: the seed of all draws.
    """

    resamples: int
    seed: int

    def figure(self, task: str, scored: Scored) -> Figure:
        """Return the figure of one task, whose interval comes from resampling its examples."""
        return interval(scored.value, scored.resampled(task, resamples=self.resamples, seed=self.seed))

    def mean(self, part: str, rows: Sequence[tuple[str, Scored]]) -> tuple[float, Array]:
        """Return the mean over tasks, and its values for resamples of tasks and of their examples, fp64 [resamples].

        Args:
            part: the name of the part, which decides the draws: the same tasks of a part are drawn for every method.
            rows: the name and the scored metric of each task; if there is only one, only its examples are resampled.
        """
        boots = np.stack([item.resampled(task, resamples=self.resamples, seed=self.seed) for task, item in rows])
        value = float(np.mean([item.value for _, item in rows]))
        if len(rows) == 1:
            return value, boots[0]
        stream = _stream(self.seed, part, *(task for task, _ in rows))
        shape = (self.resamples, len(rows))
        picked, columns = stream.integers(len(rows), size=shape), stream.integers(self.resamples, size=shape)
        return value, boots[picked, columns].mean(1)

    def combined(
        self, part: str, groups: Sequence[Sequence[tuple[str, Scored]]], combine: Callable[..., Array]
    ) -> Figure:
        """Return the figure that a function makes of several methods' means over the same tasks, resampled together.

        Args:
            part: the name of the part, which decides the draws.
            groups: for each method its rows of task name and scored metric, with the same tasks in the same order.
            combine: the function, which takes an array of means [n] for each group and returns an array [n].
        """
        means = [self.mean(part, rows) for rows in groups]
        value = float(combine(*(np.array([value]) for value, _ in means))[0])
        return interval(value, combine(*(boots for _, boots in means)))

    def sign_flip_p(self, part: str, rows: Sequence[tuple[str, Scored, Scored]], *, flips: int = 2000) -> float:
        """Return the two-sided p-value of a paired difference: how often random sign flips reach what was measured.

        All tasks have the same weight, and so have the examples within a task (Fisher's randomization test; Dror et
        al., The Hitchhiker's Guide to Testing Statistical Significance in NLP, ACL 2018).

        Args:
            part: the name of the part, which decides the draws.
            rows: the name of each task, with the two methods' scored metrics on the same examples.
            flips: how many random flips are drawn; the smallest possible p-value is 1 / (flips + 1).
        """
        weighted = np.concatenate([(first.each() - second.each()) / len(first.each()) for _, first, second in rows])
        weighted = weighted[weighted != 0.0]  # equal scores have no sign to flip
        if not weighted.size:
            return 1.0
        observed = abs(float(weighted.sum()))
        stream = _stream(self.seed, "flips", part, *(task for task, *_ in rows))
        reached = 0
        for start in range(0, flips, 200):
            signs = stream.integers(2, size=(min(200, flips - start), weighted.size)) * 2.0 - 1.0
            reached += int((np.abs(signs @ weighted) >= observed * (1 - 1e-9)).sum())
        return (reached + 1) / (flips + 1)


def recovered(method: Array, base: Array, oracle: Array) -> Array:
    """Return the recovered lift (method - base) / (oracle - base), which is NaN if the oracle gains nothing."""
    gain = oracle - base
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(gain) > 1e-9, (method - base) / gain, math.nan)
