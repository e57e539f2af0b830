"""The values that the report's templates show, taken from a result: tables whose figures are already text."""

from collections.abc import Iterable
from dataclasses import dataclass

from icmlora_cli.report.figures import (
    ABSENT,
    PART_TITLES,
    USES,
    Metric,
    interval,
    metrics_of,
    number,
    parts_of,
    plural,
    probability,
    share,
    share_interval,
    signed,
    size,
)
from icmlora_cli.report.headline import (
    Glance,
    comparison_of,
    generated_method,
    glance,
    headline,
    mean_of,
    text_specific_of,
    unrelated_of,
)
from icmlora_cli.report.result import MethodComparison, MethodInfo, Part, Result, TaskInfo, TextSpecific

PROTOCOLS = {  # what the report says of each protocol
    "bare": "Prompts do not name the task: what a model does, its weights alone make it do, unless a method says that "
    "it puts text or examples into the prompt.",
    "described": "Every prompt begins with the task's description, for every method: an adapter adds to what the "
    "description already does.",
}


@dataclass(frozen=True)
class ComparisonRow:
    """A method's row in the comparison of one part and one metric, with its figures as text.

    Args:
        method: the method.
        tasks: how many tasks are in the mean.
        mean: the mean over these tasks; a dash if there is none.
        interval: the interval of the mean.
        recovered: the recovered lift; a dash if there is none.
        recovered_interval: the interval of the recovered lift.
        difference: the mean of the generated adapters minus this one; a dash if there is no paired test.
        difference_interval: the interval of that difference.
        p: the p-value of the paired test; a dash if there is none.
        unrelated: the change of NLL on unrelated text over the part's tasks; a dash if there is none.
        unrelated_interval: the interval of that change.
        reason: why there is no mean; empty if there is one.
    """

    method: MethodInfo
    tasks: str
    mean: str
    interval: str
    recovered: str
    recovered_interval: str
    difference: str
    difference_interval: str
    p: str
    unrelated: str
    unrelated_interval: str
    reason: str


@dataclass(frozen=True)
class Panel:
    """The comparison of all methods on one part of the tasks in one metric.

    Args:
        part: the part of the tasks.
        part_title: the part's title for people.
        metric: the metric.
        tasks: how many tasks the part has.
        rows: a row for each method.
        text_specific: the text-specific lift of the generated adapters; None if it is not known.
        comparisons: the paired tests of the part in the metric.
    """

    part: Part
    part_title: str
    metric: Metric
    tasks: int
    rows: tuple[ComparisonRow, ...]
    text_specific: TextSpecific | None
    comparisons: tuple[MethodComparison, ...]


def _reason(result: Result, part: Part, method: str) -> str:
    """Return why a method has no figure on the tasks of a part."""
    names = {task.name for task in result.tasks if task.part == part}
    reasons = (
        score.reason for score in result.scores if score.method == method and score.task in names and score.reason
    )
    return "; ".join(dict.fromkeys(reasons)) or "no figure"


def _comparison_row(
    result: Result, part: Part, metric: Metric, method: MethodInfo, generated: MethodInfo | None
) -> ComparisonRow:
    """Return a method's row in the comparison of a part in a metric.

    Args:
        result: the evaluation.
        part: the part of the tasks.
        metric: the metric.
        method: the method of the row.
        generated: the method that the others are tested against; None if there is none.
    """
    mean = mean_of(result, part, method.name, metric.name)
    tested = None if generated is None else comparison_of(result, part, metric.name, generated.name, method.name)
    recovered = None if mean is None else mean.recovered
    change = unrelated_of(result, part, method.name)
    return ComparisonRow(
        method=method,
        tasks="0" if mean is None else str(mean.tasks),
        mean=ABSENT if mean is None else number(mean.figure.value),
        interval="" if mean is None else interval(mean.figure),
        recovered=ABSENT if recovered is None else share(recovered.value),
        recovered_interval="" if recovered is None else share_interval(recovered),
        difference=ABSENT if tested is None else signed(tested.difference.value),
        difference_interval="" if tested is None else interval(tested.difference),
        p=ABSENT if tested is None else probability(tested.p),
        unrelated=ABSENT if change is None else signed(change.value),
        unrelated_interval="" if change is None else interval(change),
        reason="" if mean is not None else _reason(result, part, method.name),
    )


def panels(result: Result) -> tuple[Panel, ...]:
    """Return the comparisons of all parts and metrics of a result."""
    generated = generated_method(result)
    return tuple(
        Panel(
            part=part,
            part_title=PART_TITLES[part],
            metric=metric,
            tasks=sum(task.part == part for task in result.tasks),
            rows=tuple(_comparison_row(result, part, metric, method, generated) for method in result.methods),
            text_specific=text_specific_of(result, part, metric.name),
            comparisons=tuple(c for c in result.comparisons if (c.part, c.metric) == (part, metric.name)),
        )
        for part in parts_of(result)
        for metric in metrics_of(result)
    )


def storage_sentences(result: Result) -> tuple[str, ...]:
    """Return sentences on what the generator takes on disk; none if that is not known."""
    storage = result.storage
    if storage is None:
        return ()
    first = (
        f"The generator takes {size(storage.generator)} and replaces the adapters of {plural(storage.tasks, 'task')}."
    )
    ratios = []
    if storage.one_each:
        ratios.append(f"{storage.generator / storage.one_each:.2f} times one adapter each ({size(storage.one_each)})")
    if storage.all_checkpoints:
        ratio = f"{storage.generator / storage.all_checkpoints:.2f} times all kept checkpoints"
        ratios.append(f"{ratio} ({size(storage.all_checkpoints)})")
    second = (f"That is {' and '.join(ratios)}.",) if ratios else ()
    if storage.break_even is None:
        return (first, *second, "From how many tasks on it is the smaller one is not known.")
    verdict = "it is" if storage.break_even <= storage.tasks else "it is not yet there"
    last = (
        f"At this size it is smaller than one adapter a task from {plural(storage.break_even, 'task')} on: {verdict}."
    )
    return (first, *second, last)


def duplicates(result: Result) -> tuple[TaskInfo, ...]:
    """Return the unseen tasks that are near-duplicates of a training task."""
    return tuple(task for task in result.tasks if task.similar is not None and task.similar.duplicate)


def facts(result: Result) -> tuple[tuple[str, str], ...]:
    """Return the facts that stand under the report's title, each as its name and its value."""
    counts = ((part, sum(task.part == part for task in result.tasks)) for part in parts_of(result))
    tasks = ", ".join(f"{count} {part}" for part, count in counts)
    examples = sum(task.examples for task in result.tasks)
    return (
        ("Base model", result.base.model_id),
        ("Generator", "none" if result.generator is None else f"{result.generator.name} ({result.generator.arch})"),
        ("Tasks", f"{len(result.tasks)}" + (f" ({tasks})" if tasks else "")),
        ("Test examples", f"{examples:,}"),
        ("Methods", str(len(result.methods))),
        ("Device", f"{result.made.device}, {result.made.dtype}"),
    )


def labels(result: Result) -> dict[str, object]:
    """Return what the page's script needs in addition to the result: labels, and which method is the generated one."""
    generated = generated_method(result)
    names: Iterable[Metric] = metrics_of(result)
    return {
        "metrics": {m.name: {"label": m.label, "title": m.title, "higher": m.higher} for m in names},
        "parts": {part: PART_TITLES[part] for part in parts_of(result)},
        "uses": list(USES),
        "generated": None if generated is None else generated.name,
    }


def context(result: Result) -> dict[str, object]:
    """Return all variables of the report's template that come from the result, by name."""
    metrics = metrics_of(result)
    glances: tuple[Glance, ...] = tuple(glance(result, part, metrics[0]) for part in parts_of(result) if metrics)
    return {
        "result": result,
        "headline": headline(result),
        "protocol": PROTOCOLS[result.protocol],
        "facts": facts(result),
        "main": metrics[0] if metrics else None,
        "metrics": metrics,
        "parts": [(part, PART_TITLES[part]) for part in parts_of(result)],
        "glances": glances,
        "generated": generated_method(result),
        "panels": panels(result) if result.methods else (),
        "uses": USES,
        "duplicates": duplicates(result),
        "storage": storage_sentences(result),
        "reasons": tuple(dict.fromkeys(score.reason for score in result.scores if score.reason))[:5],
        "has_outputs": any(score.outputs for score in result.scores),
        "has_layers": any(score.reconstruction is not None for score in result.scores),
    }
