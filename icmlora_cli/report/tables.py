"""Makes tables of a result, for the terminal and for ``table.md``: means by part, tasks by method, and controls."""

from collections.abc import Sequence
from dataclasses import dataclass

from icmlora_cli.report.figures import parts_of
from icmlora_cli.report.markup import code
from icmlora_cli.report.result import Figure, Mean, Result
from icmlora_cli.report.shown import one_line
from icmlora_cli.report.summary import SECONDARY

TABLE = "table.md"
UNRELATED = "unrelated text, change of NLL"
NAMES = {
    "exact_match": "exact match (greedy, whole answer)",
    "f1": "token F1",
    "map50_95": "mAP 50-95",
    "map50": "mAP 50",
    "map75": "mAP 75",
    "nll": "NLL, nats per answer token (lower is better)",
    "perplexity": "perplexity per token (lower is better)",
    "bits_per_character": "bits per character (lower is better)",
}


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Args:
        title: the table's title.
        headers: the headers of the columns.
        rows: the rows, with a text for each column.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table in Markdown, without its title, and with all special characters escaped."""
        lines = [self.headers, tuple("---" for _ in self.headers), *self.rows]
        return "\n".join("| " + " | ".join(escaped(cell) for cell in line) + " |" for line in lines) + "\n"


def escaped(text: str) -> str:
    """Return text with special characters escaped, so that it reads the same in a Markdown table."""
    flat = " ".join(one_line(text).split())
    return "".join(f"\\{char}" if char in "\\|`*_<>[]#" and flat != "---" else char for char in flat)


def figure(value: float | None, digits: int = 2) -> str:
    """Return a figure with so many decimals, or ``-`` for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(item: Figure | None, digits: int = 2) -> str:
    """Return a figure with its interval, such as ``0.82 [0.78, 0.86]``, or ``-`` for None."""
    if item is None:
        return "-"
    return f"{item.value:.{digits}f} [{item.low:.{digits}f}, {item.high:.{digits}f}]"


def metrics_of(result: Result) -> tuple[str, ...]:
    """Return the metrics of a result's means, in their order."""
    return tuple(dict.fromkeys(mean.metric for mean in result.means))


def metric_name(metric: str) -> str:
    """Return a metric's name for people."""
    return NAMES.get(metric, metric)


def comparison_table(result: Result, metric: str, *, uses: bool = True, unrelated: bool = True) -> TextTable:
    """Return the comparison in one metric: a row for each method, with its mean and recovered lift in each part.

    Args:
        result: the evaluation.
        metric: the metric's name.
        uses: whether there is a column that says what each method knows of the task.
        unrelated: whether each part has a column of the change of NLL on unrelated text, if that was measured.
    """
    means = {(mean.part, mean.method): mean for mean in result.means if mean.metric == metric}
    parts = [part for part in parts_of(result) if any(key[0] == part for key in means)]
    changes = {(item.part, item.method): item.change for item in result.unrelated if unrelated}
    headers = ["method", "uses"] if uses else ["method"]
    for part in parts:
        tasks = max(mean.tasks for key, mean in means.items() if key[0] == part)
        headers += [f"{part} ({tasks})", "recovered", *([UNRELATED] if changes else [])]
    rows = []
    for method in result.methods:
        row = [method.name, method.uses] if uses else [method.name]
        for part in parts:
            mean: Mean | None = means.get((part, method.name))
            row += [with_interval(mean.figure if mean else None), with_interval(mean.recovered if mean else None)]
            row += [with_interval(changes.get((part, method.name)), 3)] if changes else []
        rows.append(tuple(row))
    return TextTable(f"{metric_name(metric)}; protocol {result.protocol}", tuple(headers), tuple(rows))


def task_table(result: Result, metric: str) -> TextTable:
    """Return the figures of all tasks in one metric, with a row for each task and a column for each method."""
    methods = [method.name for method in result.methods]
    figures = {(score.task, score.method): score.figures.get(metric) for score in result.scores}
    rows = []
    for part in parts_of(result):
        for task in (task for task in result.tasks if task.part == part):
            task_figures = [figures.get((task.name, method)) for method in methods]
            if any(task_figures):
                rows.append((task.name, part, *(figure(item.value if item else None) for item in task_figures)))
    return TextTable(metric_name(metric), ("task", "part", *methods), tuple(rows))


def reconstruction_table(result: Result) -> TextTable:
    """Return each method's fidelity to the harvested adapters by part: mean relative error and cosine of delta-W."""
    rows = []
    for method in result.methods:
        row = [method.name]
        for part in parts_of(result):
            names = {task.name for task in result.tasks if task.part == part}
            scores = [score for score in result.scores if score.method == method.name and score.task in names]
            fidelities = [score.reconstruction.all for score in scores if score.reconstruction is not None]
            row += [
                figure(sum(item.error for item in fidelities) / len(fidelities) if fidelities else None),
                figure(sum(item.cosine for item in fidelities) / len(fidelities) if fidelities else None),
            ]
        if any(value != "-" for value in row[1:]):
            rows.append(tuple(row))
    headers = [header for part in parts_of(result) for header in (f"{part}: error", f"{part}: cosine")]
    return TextTable("delta-W against the harvested adapter", ("method", *headers), tuple(rows))


def text_table(result: Result) -> TextTable:
    """Return the text-specific lift by metric and part: generated minus the mean of swapped and random text."""
    rows = tuple(
        (metric_name(item.metric), item.part, str(item.tasks), with_interval(item.lift))
        for item in result.text_specific
    )
    return TextTable(
        "Text-specific lift: generated - mean(swapped, random text)", ("metric", "part", "tasks", "lift"), rows
    )


def paired_tests_table(result: Result, metric: str) -> TextTable:
    """Return the paired tests of the method ``generated`` against the others in one metric."""
    rows = tuple(
        (item.part, item.against, str(item.tasks), with_interval(item.difference), f"{item.p:.4f}")
        for item in result.comparisons
        if item.metric == metric and item.method == "generated"
    )
    title = f"generated minus another method, {metric_name(metric)}, same examples; p by random sign flips"
    return TextTable(title, ("part", "against", "tasks", "difference", "p"), rows)


def honesty_table(result: Result) -> TextTable:
    """Return for each task the training task most like it, and the harvested adapter nearest to the generated one."""
    rows = []
    for task in result.tasks:
        near, like = task.neighbour, task.similar
        if near is None and like is None:
            continue
        rows.append(
            (
                task.name,
                task.part,
                "-" if like is None else f"{like.task}{' (NEAR-DUPLICATE)' if like.duplicate else ''}",
                "-" if like is None else figure(like.descriptions),
                "-" if like is None else figure(like.examples),
                "-" if near is None else near.task,
                "-" if near is None else figure(near.distance),
            )
        )
    headers = ("task", "part", "most like", "words shared", "examples shared", "nearest adapter", "distance")
    return TextTable(
        "Near-duplicates of training tasks, and distance to the nearest harvested adapter", headers, tuple(rows)
    )


def reasons(result: Result) -> tuple[str, ...]:
    """Return why methods have no figure for some tasks, as ``method: reason (count of count tasks)``."""
    counts: dict[tuple[str, str], int] = {}
    for score in result.scores:
        if score.reason is not None:
            counts[score.method, score.reason] = counts.get((score.method, score.reason), 0) + 1
    return tuple(
        f"{method}: {reason} ({count} of {len(result.tasks)} tasks)" for (method, reason), count in counts.items()
    )


def _section(table: TextTable) -> list[str]:
    """Return the lines of a table under its title; none if it has no rows."""
    return [f"## {table.title[:1].upper()}{table.title[1:]}\n", table.markdown()] if table.rows else []


def markdown(result: Result) -> str:
    """Return the text of ``table.md``, which holds every table of the result."""
    generator = "no generator" if result.generator is None else f"generator {result.generator.name}"
    lines = [
        f"# Evaluation of {escaped(generator)} on {escaped(result.base.name)}\n",
        f"Protocol `{result.protocol}`, {len(result.tasks)} tasks, seed {result.recipe.get('seed')}. Intervals: 95 %, "
        f"bootstrap over tasks and examples. Recovered: (method - base) / (harvested - base) of the means.\n",
        f"Command: {code(result.made.command, None)}; {result.made.device}, {result.made.dtype}.\n",
    ]
    for metric in metrics_of(result):
        lines += _section(comparison_table(result, metric))
    tables: Sequence[TextTable] = [text_table(result), reconstruction_table(result), honesty_table(result)]
    for table in tables:
        lines += _section(table)
    for metric in metrics_of(result):
        if metric not in SECONDARY:
            lines += _section(paired_tests_table(result, metric))
    for metric in metrics_of(result):
        lines += _section(task_table(result, metric))
    missing = reasons(result)
    if missing:
        lines += ["## What is missing\n", *(f"- {escaped(item)}" for item in missing), ""]
    return "\n".join(lines)
