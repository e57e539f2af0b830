"""``icmlora eval``: the ladder on held-out examples."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import DEFAULT_BASE, Base, Device, Json, Offline, Quiet, Tasks
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.registry.generators import GeneratorStore
    from icmlora_cli.workflows.evaluate import EvalResult


def evaluate(
    tasks: Tasks = None,
    base: Base = DEFAULT_BASE,
    generator: Annotated[
        str | None, typer.Option("--generator", "-g", help="A generator's name or folder; 'default' if there is one.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Test examples a task, at most.")] = None,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score base, described base, average, generated and harvested adapters on the tasks' test examples.

    Exact match under greedy decoding, and NLL (nats per answer token). Only the described base has the task's
    description in its prompt.
    """
    with session("eval", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.registry.generators import GeneratorStore
        from icmlora_cli.registry.home import Home
        from icmlora_cli.registry.tasks import TaskStore

        home = Home.from_environment()
        chosen = TaskStore(home).select(tasks)
        folder = _generator(GeneratorStore(home), generator)
        from icmlora_cli.workflows.base import resolve as resolve_base
        from icmlora_cli.workflows.evaluate import run

        with out.progress() as on_progress:
            found = resolve_base(base, home, offline=offline, on_progress=on_progress)
            result = run(
                chosen, found, home, generator_folder=folder, limit=limit, device=device, on_progress=on_progress
            )
        out.result(eval_dict(result))
        print_ladder(out, result)
        if folder is None:
            out.note("no generator yet, so its column is missing; train one: icmlora train")


def _generator(store: "GeneratorStore", name: str | None) -> Path | None:
    if name is not None:
        return store.find(name)
    return store.find("default") if "default" in store.names() else None


def eval_dict(result: "EvalResult") -> dict[str, object]:
    """Return the JSON form of an evaluation."""
    return {
        "base": result.base,
        "generator": None if result.generator is None else str(result.generator),
        "rungs": list(result.rungs),
        "cells": [asdict(cell) for cell in result.cells],
        "seconds": result.seconds,
    }


def print_ladder(out: Out, result: "EvalResult") -> None:
    """Print the tables of exact match and NLL."""
    from icmlora_cli.report.ladder import ladder_table

    exact = ladder_table(result.cells, result.rungs, "exact_match")
    out.table(exact.headers, exact.rows, title="exact match on test examples (greedy)")
    nll = ladder_table(result.cells, result.rungs, "nll")
    out.table(nll.headers, nll.rows, title="NLL, nats per answer token (lower is better)")
