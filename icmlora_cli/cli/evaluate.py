"""``icmlora eval``: compare the methods on the tasks' test examples."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import (
    DEFAULT_BASE,
    Base,
    Device,
    Generator,
    Json,
    Limit,
    Offline,
    Quiet,
    Recipe,
    Seed,
    Tasks,
)
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from icmlora_cli.registry.generators import GeneratorStore
    from icmlora_cli.report.result import Result
    from icmlora_cli.workflows.evaluate.evaluate import EvalResult

COMPARED = "What is compared"
FEW = 8  # the most methods whose columns still fit a terminal side by side


def evaluate(
    tasks: Tasks = None,
    base: Base = DEFAULT_BASE,
    generator: Generator = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Result folder; by default results/ in the registry.")
    ] = None,
    recipe: Recipe = None,
    limit: Limit = None,
    seed: Seed = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods", help="Methods to score, such as base,generated; repeatable.", rich_help_panel=COMPARED
        ),
    ] = None,
    rungs: Annotated[list[str] | None, typer.Option("--rungs", hidden=True, help="The old name of --methods.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", help="bare, or described: the description is in every prompt.", rich_help_panel=COMPARED
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option("--shots", min=2, help="Examples that few-shot methods see.", rich_help_panel=COMPARED),
    ] = None,
    lm_eval: Annotated[
        str | None,
        typer.Option(
            "--lm-eval",
            help="Score on TASK,TASK of lm-eval too (extra icmlora[lm-eval]).",
            rich_help_panel=COMPARED,
        ),
    ] = None,
    lm_eval_include: Annotated[
        Path | None,
        typer.Option(
            "--lm-eval-include",
            help="Folder of further lm-eval task files; they can run code.",
            rich_help_panel=COMPARED,
        ),
    ] = None,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare all methods on the tasks' test examples, with controls.

    It writes result.json, table.md and report.html. After an interrupt, the same command goes on where it was. Without
    -g, the generator is 'default', if there is one. docs/evaluation.md explains the methods.
    """
    with session("eval", as_json=as_json, quiet=quiet) as printer:
        from icmlora_cli.config.evaluate import EvalRecipe
        from icmlora_cli.config.recipes import resolve
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.generators import GeneratorStore
        from icmlora_cli.workflows.select_tasks import tasks_to_score

        home = Home.from_environment()
        named = tuple(name.strip() for item in (*(methods or ()), *(rungs or ())) for name in item.split(",")) or None
        overrides = {"methods": named, "protocol": protocol, "limit": limit, "shots": shots, "seed": seed}
        settings = resolve(EvalRecipe, recipe, "eval", overrides)
        chosen = tasks_to_score(home, tasks)
        folder = _generator(GeneratorStore(home), generator)
        from icmlora_cli.workflows.base.pull import resolve as resolve_base
        from icmlora_cli.workflows.evaluate.evaluate import EvalRequest, run
        from icmlora_cli.workflows.evaluate.lm_eval import HarnessRequest

        names = tuple(name.strip() for name in (lm_eval or "").split(",") if name.strip())
        lm_eval_request = HarnessRequest(names, lm_eval_include, limit) if names else None
        request = EvalRequest(settings, folder, lm_eval_request)
        with printer.progress() as on_progress:
            base_model = resolve_base(base, home, offline=offline, on_progress=on_progress)
            evaluation = run(chosen, base_model, request, home, out=out, device=device, on_progress=on_progress)
        printer.result(eval_dict(evaluation))
        print_comparison(printer, evaluation)
        if folder is None:
            options = ", ".join(f"-g {name}" for name in GeneratorStore(home).names())
            advice = f"name one: {options}" if options else "train one: icmlora train"
            printer.note(f"no generator is named 'default', so the methods of one are missing; {advice}")


def _generator(store: "GeneratorStore", name: str | None) -> Path | None:
    if name is not None:
        return store.find(name)
    return store.find("default") if "default" in store.names() else None


def eval_dict(done: "EvalResult") -> dict[str, object]:
    """Return the JSON form of an evaluation, with its figures and the folder of its files."""
    result = done.result
    parts = {task.name: task.part for task in result.tasks}
    return {
        "folder": str(done.folder),
        "base": result.base.name,
        "generator": None if result.generator is None else result.generator.name,
        "protocol": result.protocol,
        "methods": [method.name for method in result.methods],
        "scores": [
            {
                "task": score.task,
                "part": parts[score.task],
                "method": score.method,
                "figures": {name: figure.value for name, figure in score.figures.items()},
                "unrelated": None if score.unrelated is None else score.unrelated.value,
                "reason": score.reason,
            }
            for score in result.scores
        ],
        "means": [mean.model_dump(mode="json") for mean in result.means],
        "text_specific": [item.model_dump(mode="json") for item in result.text_specific],
        "unrelated": [item.model_dump(mode="json") for item in result.unrelated],
        "lm_eval": done.lm_eval,
        "scored": done.scored,
        "seconds": done.seconds,
    }


def print_comparison(out: Out, done: "EvalResult") -> None:
    """Print the comparison by each main metric, a table of the tasks where it fits, and the folder of the files."""
    from icmlora_cli.report.summary import SECONDARY
    from icmlora_cli.report.tables import comparison_table, metrics_of, task_table, text_table

    result = done.result
    main_metrics = [metric for metric in metrics_of(result) if metric not in SECONDARY]
    for metric in main_metrics:
        if len(result.methods) <= FEW and len(result.tasks) > 1:
            tasks = task_table(result, metric)
            out.table(tasks.headers, tasks.rows, title=tasks.title)
        table = comparison_table(result, metric, uses=False, unrelated=False)
        out.table(table.headers, table.rows, title=f"{table.title}; mean [95 % interval]")
    lift = text_table(result)
    if lift.rows:
        out.table(lift.headers, lift.rows, title=lift.title)
    if done.lm_eval is not None:
        rows = lm_eval_rows(done.lm_eval)
        out.table(("task", "method", "lm-eval task", "metric", "value"), rows, title="lm-eval")
    _remarks(out, result)
    out.line(str(done.folder) if out.quiet else f"all tables, figures and outputs: {_short_path(done.folder)}")
    out.note(f"look at it: icmlora report open {_short_path(done.folder)}")


def lm_eval_rows(items: "Sequence[Mapping[str, Any]]") -> list[tuple[str, ...]]:
    """Return one row for each adapter, task of lm-eval and metric.

    Args:
        items: The entries of ``lm-eval.json``.
    """
    rows: list[tuple[str, ...]] = []
    for item in items:
        for name, metrics in item["scores"].items():
            for metric, figure in metrics.items():
                error = "" if figure["stderr"] is None else f" ± {figure['stderr']:.4f}"
                rows.append((item["task"] or "-", item["method"], name, metric, f"{figure['value']:.4f}{error}"))
    return rows


def _short_path(folder: Path) -> str:
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def _remarks(out: Out, result: "Result") -> None:
    from icmlora_cli.report.tables import reasons

    for task in result.tasks:
        if task.similar is not None and task.similar.duplicate:
            out.note(f"warning: {task.name} is a near-duplicate of {task.similar.task}, which the generator learned")
    for reason in reasons(result):
        out.note(f"missing: {reason}")
