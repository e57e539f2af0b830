"""From scores to means, recovered lift, paired tests and text-specific lift."""

from collections.abc import Mapping, Sequence

import numpy as np

from icmlora_cli.report.result import HIGHER_IS_BETTER, PARTS, Mean, MethodComparison, Part, TextSpecific
from icmlora_cli.report.statistics import Array, Resampler, Scored, recovered

ScoreTable = Mapping[tuple[str, str], Mapping[str, Scored]]
"""(task, method) to its metrics; a score that has nothing is not there."""

BASE, ORACLE, RIGHT = "base", "harvested", "generated"
WRONG = ("swapped-text", "random-text")
COMPARED = ("generated", "generated-shots", "best-of")
SECONDARY = ("perplexity", "f1")  # left out where it is short: they say what bits_per_character and exact_match say


def _identity(first: Array) -> Array:
    return first


def _minus(first: Array, second: Array) -> Array:
    return first - second


def _text_lift(right: Array, swapped: Array, random: Array) -> Array:
    return right - (swapped + random) / 2


class Summary:
    """Sums scores up, part by part.

    Args:
        scores: the scores.
        parts: task to part, in the tables' order.
        methods: the comparison's names, in order.
        resampler: of all intervals and tests.
    """

    def __init__(
        self, scores: ScoreTable, parts: Mapping[str, Part], methods: Sequence[str], resampler: Resampler
    ) -> None:
        """Keep the scores, and list their metrics in the order in which they first occur."""
        self.scores, self.parts, self.methods, self.resampler = scores, parts, methods, resampler
        found = (metric for score in scores.values() for metric in score)
        self.metrics = tuple(dict.fromkeys(found))

    def _tasks(self, part: Part, metric: str, *methods: str) -> list[str]:
        """Return the tasks of a part that all of the methods have the metric for."""
        own = [task for task, its in self.parts.items() if its == part]
        return [task for task in own if all(metric in self.scores.get((task, method), {}) for method in methods)]

    def _rows(self, tasks: Sequence[str], method: str, metric: str) -> list[tuple[str, Scored]]:
        return [(task, self.scores[task, method][metric]) for task in tasks]

    def means(self) -> tuple[Mean, ...]:
        """Return the mean of every part, metric and method, with recovered lift where base and oracle are there."""
        rows = []
        for part in PARTS:
            for metric in self.metrics:
                rows += [mean for method in self.methods if (mean := self._mean(part, metric, method)) is not None]
        return tuple(rows)

    def _mean(self, part: Part, metric: str, method: str) -> Mean | None:
        tasks = self._tasks(part, metric, method)
        if not tasks:
            return None
        lift = None
        whole = self._tasks(part, metric, method, BASE, ORACLE)
        if whole and method != BASE:
            groups = [self._rows(whole, name, metric) for name in (method, BASE, ORACLE)]
            lift = self.resampler.combined(part, groups, recovered)
            before, after = (sum(item.value for _, item in rows) for rows in groups[1:])
            better = after > before if HIGHER_IS_BETTER.get(metric, True) else after < before
            lift = lift if better and np.isfinite(lift.value) else None
        figure = self.resampler.combined(part, [self._rows(tasks, method, metric)], _identity)
        return Mean(part=part, method=method, metric=metric, tasks=len(tasks), figure=figure, recovered=lift)

    def comparisons(self) -> tuple[MethodComparison, ...]:
        """Return the paired tests of the generated methods against every other method."""
        rows = []
        for part in PARTS:
            for metric in self.metrics:
                if metric in SECONDARY:
                    continue
                for method in COMPARED:
                    others = [other for other in self.methods if other != method and method in self.methods]
                    rows += [self._comparison(part, metric, method, other) for other in others]
        return tuple(row for row in rows if row is not None)

    def _comparison(self, part: Part, metric: str, method: str, against: str) -> MethodComparison | None:
        tasks = self._tasks(part, metric, method, against)
        if not tasks:
            return None
        groups = [self._rows(tasks, name, metric) for name in (method, against)]
        pairs = [(task, self.scores[task, method][metric], self.scores[task, against][metric]) for task in tasks]
        return MethodComparison(
            part=part,
            metric=metric,
            method=method,
            against=against,
            tasks=len(tasks),
            difference=self.resampler.combined(part, groups, _minus),
            p=self.resampler.sign_flip_p(part, pairs),
        )

    def text_specific(self) -> tuple[TextSpecific, ...]:
        """Return what the right text brings over wrong texts, over tasks that have all three."""
        rows = []
        for part in PARTS:
            for metric in self.metrics:
                tasks = self._tasks(part, metric, RIGHT, *WRONG)
                if tasks:
                    groups = [self._rows(tasks, name, metric) for name in (RIGHT, *WRONG)]
                    lift = self.resampler.combined(part, groups, _text_lift)
                    rows.append(TextSpecific(part=part, metric=metric, tasks=len(tasks), lift=lift))
        return tuple(rows)
