"""Makes means, recovered lift, paired tests and text-specific lift from the scores of an evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np

from icmlora_cli.report.result import HIGHER_IS_BETTER, PARTS, Mean, MethodComparison, Part, TextSpecific, Unrelated
from icmlora_cli.report.statistics import Array, Resampler, Scored, recovered

ScoreTable = Mapping[tuple[str, str], Mapping[str, Scored]]
"""The scored metrics by name, for each task and method that has any."""

BASE, ORACLE, RIGHT = "base", "harvested", "generated"
WRONG = ("swapped-text", "random-text")
COMPARED = ("generated", "generated-shots", "best-of", "gen-examples")
# not tested in pairs, since bits_per_character, exact_match and map50_95 say the same
SECONDARY = ("perplexity", "f1", "map50", "map75")


def _identity(first: Array) -> Array:
    """Return the means of the one method as they are."""
    return first


def _minus(first: Array, second: Array) -> Array:
    """Return the difference of two methods' means."""
    return first - second


def _text_lift(right: Array, swapped: Array, random: Array) -> Array:
    """Return the text-specific lift: the means with the right text less those with wrong texts."""
    return right - (swapped + random) / 2


class Summary:
    """Summarises the scores of an evaluation for each part of the tasks.

    Args:
        scores: the scored metrics of each task and method.
        parts: the part of each task, by the task's name, in the order of the tables.
        methods: the names of the methods, in the order of the tables.
        resampler: the resampler that makes all intervals and tests.
    """

    def __init__(
        self, scores: ScoreTable, parts: Mapping[str, Part], methods: Sequence[str], resampler: Resampler
    ) -> None:
        """Store the scores, and list their metrics in the order in which they first occur."""
        self.scores, self.parts, self.methods, self.resampler = scores, parts, methods, resampler
        names = (metric for score in scores.values() for metric in score)
        self.metrics = tuple(dict.fromkeys(names))

    def _tasks(self, part: Part, metric: str, *methods: str) -> list[str]:
        """Return the tasks of a part for which all of the methods have the metric."""
        in_part = [task for task, its in self.parts.items() if its == part]
        return [task for task in in_part if all(metric in self.scores.get((task, method), {}) for method in methods)]

    def _rows(self, tasks: Sequence[str], method: str, metric: str) -> list[tuple[str, Scored]]:
        """Return the name of each task with a method's scored metric on it."""
        return [(task, self.scores[task, method][metric]) for task in tasks]

    def means(self) -> tuple[Mean, ...]:
        """Return the mean of every part, metric and method, with the recovered lift if base and oracle were scored."""
        rows = []
        for part in PARTS:
            for metric in self.metrics:
                rows += [mean for method in self.methods if (mean := self._mean(part, metric, method)) is not None]
        return tuple(rows)

    def _mean(self, part: Part, metric: str, method: str) -> Mean | None:
        """Return a method's mean over a part; None if it has the metric for no task."""
        tasks = self._tasks(part, metric, method)
        if not tasks:
            return None
        lift = None
        comparable = self._tasks(part, metric, method, BASE, ORACLE)
        if comparable and method != BASE:
            groups = [self._rows(comparable, name, metric) for name in (method, BASE, ORACLE)]
            lift = self.resampler.combined(part, groups, recovered)
            before, after = (sum(item.value for _, item in rows) for rows in groups[1:])
            better = after > before if HIGHER_IS_BETTER.get(metric, True) else after < before
            lift = lift if better and np.isfinite(lift.value) else None
        figure = self.resampler.combined(part, [self._rows(tasks, method, metric)], _identity)
        return Mean(part=part, method=method, metric=metric, tasks=len(tasks), figure=figure, recovered=lift)

    def comparisons(self) -> tuple[MethodComparison, ...]:
        """Return the paired tests of the generated methods against every other method, in all but secondary metrics."""
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
        """Return the paired test of a method against another; None if no task has the metric for both."""
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
        """Return the text-specific lift of every part and metric, over tasks that all three methods were scored on."""
        rows = []
        for part in PARTS:
            for metric in self.metrics:
                tasks = self._tasks(part, metric, RIGHT, *WRONG)
                if tasks:
                    groups = [self._rows(tasks, name, metric) for name in (RIGHT, *WRONG)]
                    lift = self.resampler.combined(part, groups, _text_lift)
                    rows.append(TextSpecific(part=part, metric=metric, tasks=len(tasks), lift=lift))
        return tuple(rows)

    def unrelated(self, changes: Mapping[tuple[str, str], Scored | None]) -> tuple[Unrelated, ...]:
        """Return the mean change of NLL on unrelated text of every part and method that has any.

        Args:
            changes: the change on each passage, for each task and method; None where there is none.
        """
        means = []
        for part in PARTS:
            tasks = [task for task, its in self.parts.items() if its == part]
            for method in self.methods:
                found = [(task, changes.get((task, method))) for task in tasks]
                rows = [(task, change) for task, change in found if change is not None]
                if rows:
                    change = self.resampler.combined(part, [rows], _identity)
                    means.append(Unrelated(part=part, method=method, tasks=len(rows), change=change))
        return tuple(means)
