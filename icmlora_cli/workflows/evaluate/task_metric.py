"""Scores the loaded base, with whatever is merged into it, by the one metric that a task names."""

from collections.abc import Sequence

from icmlora_cli.lm.answer_metrics import apply_metric, token_f1
from icmlora_cli.lm.lengths import task_rows
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import score_texts
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.registry.tasks import Task
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.metrics import DETECTION_METRICS
from icmlora_cli.workflows.evaluate.scores import boxes_found, text_metrics, written_answers


def task_metric(loaded: LoadedBase, task: Task, examples: Sequence[Example]) -> float:
    """Return the metric that a task names, over examples, as ``icmlora eval`` counts it with the ``bare`` protocol.

    Args:
        loaded: The base, with whatever is merged into it.
        task: The task, which names the metric and the template.
        examples: The examples to score, at least one.

    Raises:
        NotFoundError: If no installed package has the metric.
        IcmloraError: If a metric of a package fails.
    """
    if task.template.kind == "text":
        return text_metrics(score_texts(loaded, [item.output for item in examples]))[task.metric].value
    rows = task_rows(loaded, task, examples)
    scores = score_rows(loaded, rows)
    if task.metric == "exact_match":
        return scores.exact_match
    if task.metric == "nll":
        return scores.mean_nll
    written, expected = written_answers(loaded, task, examples, rows, scores.exact), [item.output for item in examples]
    if task.metric in DETECTION_METRICS:
        return boxes_found(expected, written)[task.metric].value
    if task.metric == "f1":
        values = tuple(token_f1(one, other) for one, other in zip(written, expected, strict=True))
    else:
        values = apply_metric(task.metric, written, expected)
    return sum(values) / len(values)
