"""The main finding of an evaluation, as one sentence and as a row for each part of the tasks."""

from dataclasses import dataclass

from icmlora_cli.report.figures import (
    PART_TITLES,
    Metric,
    joined,
    metrics_of,
    number,
    parts_of,
    plural,
    share,
)
from icmlora_cli.report.result import Figure, Mean, MethodComparison, MethodInfo, Part, Result, TextSpecific

BASE, GENERATED, HARVESTED = "base", "generated", "harvested"
FROM = {
    "nothing": "Generated from nothing at all",
    "text": "Generated from the description alone",
    "examples": "Generated from a few examples",
    "text and examples": "Generated from the description and a few examples",
    "training data": "Generated with the task's training data",
}


@dataclass(frozen=True)
class Glance:
    """The main figures of one part of the tasks, in one metric; a row at the top of the report.

    Args:
        part: the part of the tasks.
        title: the part's title for people.
        tasks: how many tasks the part has.
        base: the mean of the bare base; None if it was not scored.
        generated: the mean of the generated adapters; None if they were not scored.
        harvested: the mean of the harvested adapters; None if they were not scored.
        rival: the mean of the best other method that was not trained on the task; None if there is none.
        rival_title: the title of that method; empty if there is none.
        against_rival: the paired test of the generated adapters against that method.
        text_specific: the text-specific lift of the generated adapters.
    """

    part: Part
    title: str
    tasks: int
    base: Mean | None
    generated: Mean | None
    harvested: Mean | None
    rival: Mean | None
    rival_title: str
    against_rival: MethodComparison | None
    text_specific: TextSpecific | None


def generated_method(result: Result) -> MethodInfo | None:
    """Return the method that the result is about: ``generated``, or else the first one with paired tests."""
    methods = {method.name: method for method in result.methods}
    tested = (comparison.method for comparison in result.comparisons)
    return next((methods[name] for name in (GENERATED, *tested) if name in methods), None)


def mean_of(result: Result, part: Part, method: str, metric: str) -> Mean | None:
    """Return a method's mean over a part in a metric; None if there is none."""
    key = (part, method, metric)
    return next((mean for mean in result.means if (mean.part, mean.method, mean.metric) == key), None)


def comparison_of(result: Result, part: Part, metric: str, method: str, against: str) -> MethodComparison | None:
    """Return the paired test of a method against another, in a part and a metric; None if there is none."""
    key = (part, metric, method, against)
    return next(
        (item for item in result.comparisons if (item.part, item.metric, item.method, item.against) == key), None
    )


def text_specific_of(result: Result, part: Part, metric: str) -> TextSpecific | None:
    """Return the text-specific lift of a part in a metric; None if there is none."""
    return next((item for item in result.text_specific if (item.part, item.metric) == (part, metric)), None)


def unrelated_of(result: Result, part: Part, method: str) -> Figure | None:
    """Return a method's mean change of NLL on unrelated text over a part; None if there is none."""
    return next((item.change for item in result.unrelated if (item.part, item.method) == (part, method)), None)


def _best(result: Result, part: Part, metric: Metric, methods: set[str]) -> Mean | None:
    """Return the best mean of the named methods over a part; None if none of them has one."""
    means = [
        mean for mean in result.means if mean.part == part and mean.metric == metric.name and mean.method in methods
    ]
    sign = 1 if metric.higher else -1
    return max(means, key=lambda mean: sign * mean.figure.value, default=None)


def glance(result: Result, part: Part, metric: Metric) -> Glance:
    """Return the main figures of a part of the tasks in one metric.

    The rival is the best method that the generated adapters were tested against and that does not use the task's
    training data.
    """
    generated = generated_method(result)
    name = generated.name if generated else ""
    tested = {item.against for item in result.comparisons if item.method == name}
    trained = {method.name for method in result.methods if method.uses == "training data"}
    rival = _best(result, part, metric, tested - trained)
    titles = {method.name: method.title for method in result.methods}
    return Glance(
        part=part,
        title=PART_TITLES[part],
        tasks=sum(task.part == part for task in result.tasks),
        base=mean_of(result, part, BASE, metric.name),
        generated=mean_of(result, part, name, metric.name),
        harvested=mean_of(result, part, HARVESTED, metric.name),
        rival=rival,
        rival_title="" if rival is None else titles.get(rival.method, rival.method),
        against_rival=None if rival is None else comparison_of(result, part, metric.name, name, rival.method),
        text_specific=text_specific_of(result, part, metric.name),
    )


def headline(result: Result) -> str:
    """Return the main finding in one sentence, from the tasks' main metric."""
    metrics, generated = metrics_of(result), generated_method(result)
    if not metrics:
        return "Nothing was scored: no method had an answer for any task."
    main = metrics[0]
    rows = [glance(result, part, main) for part in parts_of(result)]
    gains: list[str] = []
    others: list[str] = []
    for row in rows:
        if row.generated is None:
            continue
        if row.generated.recovered is not None:
            gain = "" if gains else f" of the harvested adapters' gain over the base in {main.label}"
            gains.append(f"{share(row.generated.recovered.value)}{gain} on {row.title}")
        else:
            base = f" (base {_value(row.base)})" if row.base else ""
            others.append(f"{_value(row.generated)}{base} on {row.title}")
    if generated is None or not (gains or others):
        return _without_generator(result, main)
    direction = "" if main.higher else f" ({main.direction})"
    second = f"reach {main.label}{direction} {joined(others)}"
    why = ", where there is no harvested gain to measure by" if gains else ""
    clauses = [*([f"recover {joined(gains)}"] if gains else []), *([second + why] if others else [])]
    return f"{FROM[generated.uses]}, adapters {'; they '.join(clauses)}."


def _value(mean: Mean) -> str:
    """Return a mean's value as text."""
    return number(mean.figure.value)


def _without_generator(result: Result, metric: Metric) -> str:
    """Return the main finding of a result without generated adapters: the best method of each part."""
    titles = {method.name: method.title for method in result.methods}
    best = [(part, _best(result, part, metric, set(titles))) for part in parts_of(result)]
    findings = [f"{titles[mean.method]} with {_value(mean)} on {PART_TITLES[part]}" for part, mean in best if mean]
    start = (
        f"No generated adapter was scored. Of {plural(len(titles), 'method')} on {plural(len(result.tasks), 'task')}"
    )
    return f"{start}, the best in {metric.label} ({metric.direction}): {joined(findings)}."
