"""What an evaluation found, in a sentence and in a row for each part of the tasks."""

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
from icmlora_cli.report.result import Mean, MethodComparison, MethodInfo, Part, Result, TextSpecific

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
    """What there is to know first of a part of the tasks.

    Args:
        part: which.
        title: for people.
        tasks: how many.
        base: mean of the bare base.
        generated: mean of the generated adapters.
        harvested: mean of the harvested adapters.
        rival: mean of the best other method that was not trained on the task.
        rival_title: its title.
        against_rival: the paired test of the generated adapters against it.
        text_specific: what is due to the right text.
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
    """Return the method that the result is about: ``generated``, else the first that others were tested against."""
    methods = {method.name: method for method in result.methods}
    tested = (comparison.method for comparison in result.comparisons)
    return next((methods[name] for name in (GENERATED, *tested) if name in methods), None)


def mean_of(result: Result, part: Part, method: str, metric: str) -> Mean | None:
    """Return a method's mean over a part; None where it has none."""
    wanted = (part, method, metric)
    return next((mean for mean in result.means if (mean.part, mean.method, mean.metric) == wanted), None)


def comparison_of(result: Result, part: Part, metric: str, method: str, against: str) -> MethodComparison | None:
    """Return the paired test of a method against another; None where there is none."""
    wanted = (part, metric, method, against)
    found = ((item.part, item.metric, item.method, item.against) == wanted for item in result.comparisons)
    return next((item for item, ours in zip(result.comparisons, found, strict=True) if ours), None)


def text_specific_of(result: Result, part: Part, metric: str) -> TextSpecific | None:
    """Return the text-specific lift of a part; None where there is none."""
    return next((item for item in result.text_specific if (item.part, item.metric) == (part, metric)), None)


def _best(result: Result, part: Part, metric: Metric, methods: set[str]) -> Mean | None:
    means = [
        mean for mean in result.means if mean.part == part and mean.metric == metric.name and mean.method in methods
    ]
    sign = 1 if metric.higher else -1
    return max(means, key=lambda mean: sign * mean.figure.value, default=None)


def glance(result: Result, part: Part, metric: Metric) -> Glance:
    """Sum a part of the tasks up, in one metric.

    A rival is a method that the generated adapters were tested against and that does without the task's training data.
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
            of = "" if gains else f" of the harvested adapters' gain over the base in {main.label}"
            gains.append(f"{share(row.generated.recovered.value)}{of} on {row.title}")
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
    return number(mean.figure.value)


def _without_generator(result: Result, metric: Metric) -> str:
    titles = {method.name: method.title for method in result.methods}
    best = [(part, _best(result, part, metric, set(titles))) for part in parts_of(result)]
    found = [f"{titles[mean.method]} with {_value(mean)} on {PART_TITLES[part]}" for part, mean in best if mean]
    start = (
        f"No generated adapter was scored. Of {plural(len(titles), 'method')} on {plural(len(result.tasks), 'task')}"
    )
    return f"{start}, the best in {metric.label} ({metric.direction}): {joined(found)}."
