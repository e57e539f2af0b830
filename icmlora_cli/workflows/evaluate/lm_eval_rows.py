"""Scores base, generated and harvested adapters on lm-eval's own tasks, besides the comparison; resumable."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.registry.tasks import Task
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.workflows.evaluate import lm_eval
from icmlora_cli.workflows.evaluate.lm_eval import HarnessRequest
from icmlora_cli.workflows.evaluate.methods import EvalContext, generator_key
from icmlora_cli.workflows.evaluate.result import oracle

VERSION = 1  # of the procedure; part of the key of every row
FOLDER = "lm-eval"
SUMMARY = "lm-eval.json"


def run(
    evaluation: EvalContext, tasks: Sequence[Task], request: HarnessRequest, folder: Path
) -> list[dict[str, object]]:
    """Score base, generated and harvested adapters of each task; rows that an earlier run scored are read again.

    Args:
        evaluation: The base, the generator and the harvested adapters.
        tasks: The tasks of the registry whose adapters are scored.
        request: The tasks of lm-eval.
        folder: The result folder.

    Returns:
        A row for each adapter: ``task`` (null for the base), ``method``, and ``scores`` by lm-eval's task and metric.

    Raises:
        IcmloraError: If lm-eval fails.
        NotFoundError: If lm-eval has no such task.
    """
    rows: list[dict[str, object]] = []
    for task, method, adapter, key in _adapters(evaluation, tasks):
        identity = files.sha256_json([VERSION, key, list(request.tasks), str(request.include), request.limit])
        path = folder / FOLDER / f"{method if task is None else f'{task}.{method}'}.json"
        row = files.read_json(path) if path.is_file() else {}
        if row.get("key") != identity:
            result = lm_eval.run({method: adapter}, evaluation.loaded, request, on_progress=evaluation.on_progress)
            scores = {
                name: {metric: asdict(figure) for metric, figure in metrics.items()}
                for name, metrics in result.figures[method].items()
            }
            row = {"key": identity, "lm_eval": result.version, "task": task, "method": method, "scores": scores}
            files.write_json(path, row)
        rows.append({name: row[name] for name in ("task", "method", "scores")})
    files.write_json(folder / SUMMARY, {"schema": "icmlora.lm-eval/2", "scores": rows})
    return rows


def _adapters(
    evaluation: EvalContext, tasks: Sequence[Task]
) -> Iterator[tuple[str | None, str, Adapter | None, list[str]]]:
    """Yield task, method, adapter, and what identifies the adapter."""
    base = evaluation.loaded.base.weight_hash
    yield None, "base", None, [base]
    source = evaluation.source()
    for task in tasks:
        if source is not None and evaluation.generator is not None:
            text = task.descriptions[0]
            yield task.name, "generated", source.make(text), [base, generator_key(evaluation.generator), text]
        record = evaluation.library.store.newest(evaluation.loaded.base, task)
        if record is not None:
            yield task.name, "harvested", oracle(evaluation, task), [base, record.checkpoints[-1].sha256]
