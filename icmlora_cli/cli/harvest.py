"""``icmlora harvest``: train one LoRA for each of many tasks."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import (
    DEFAULT_BASE,
    TRAINING,
    WHERE,
    Base,
    Device,
    Json,
    Offline,
    Quiet,
    Recipe,
    Seed,
    Steps,
    Tasks,
)
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.registry.adapters import AdapterRecord


class Executor(StrEnum):
    """Where a harvest trains its tasks: in processes here, or on a Ray cluster."""

    local = "local"
    ray = "ray"


OF_EXECUTOR = {"ray": ("address", "gpus_per_task"), "local": ("workers", "tasks_per_batch", "device")}


def _typed_options(context: typer.Context) -> dict[str, str]:
    """Return the parameters that stand on the command line, each with its option, in the order of the command."""
    named = {item.name: item.opts[0] for item in context.command.params if item.name is not None}
    sources = {name: context.get_parameter_source(name) for name in named}
    return {name: named[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def _check_alone(context: typer.Context) -> None:
    """Check that no option stands before a subcommand, which would not see it.

    Raises:
        UsageError: If an option stands there.
    """
    from icmlora_cli.errors import UsageError

    if typed := _typed_options(context):
        after = f"icmlora harvest {context.invoked_subcommand} {next(iter(typed.values()))} ..."
        raise UsageError(f"options of {context.invoked_subcommand} stand after it", hint=after)


def _check_together(context: typer.Context, executor: str) -> None:
    """Check that no option of the other executor is given.

    Raises:
        UsageError: If such an option is given.
    """
    from icmlora_cli.errors import UsageError

    typed = _typed_options(context)
    for other, names in OF_EXECUTOR.items():
        wrong = [typed[name] for name in names if name in typed]
        if other != executor and wrong:
            raise UsageError(
                f"{wrong[0]} goes with --executor {other}", hint=f"--executor {other}, or without {wrong[0]}"
            )


app = typer.Typer(invoke_without_command=True, epilog="Example: icmlora harvest --tasks 'pick_*' --steps 60")


@app.callback()
def harvest(
    context: typer.Context,
    tasks: Tasks = None,
    base: Base = DEFAULT_BASE,
    recipe: Recipe = None,
    steps: Steps = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Rank of the LoRAs.", rich_help_panel=TRAINING)] = None,
    seed: Seed = None,
    executor: Annotated[
        Executor,
        typer.Option(
            "--executor", help="Where tasks are trained: processes here, or a Ray cluster.", rich_help_panel=WHERE
        ),
    ] = Executor.local,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            "-w",
            min=1,
            help="local: processes side by side; each loads the base.",
            rich_help_panel=WHERE,
        ),
    ] = 1,
    tasks_per_batch: Annotated[
        int | None,
        typer.Option(
            "--tasks-per-batch",
            min=1,
            help="local: tasks that share a pass; by default what a GPU's memory holds, 1 on a CPU.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="ray: the cluster, or auto; without, one is started here.", rich_help_panel=WHERE
        ),
    ] = None,
    gpus_per_task: Annotated[
        float,
        typer.Option(
            "--gpus-per-task",
            min=0.0,
            help="ray: share of a GPU; 0.25 packs four tasks on one.",
            rich_help_panel=WHERE,
        ),
    ] = 0.0,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one LoRA for each registered task on the frozen base.

    A task that is harvested already is not trained again, and one that was interrupted goes on where it was. Without
    --tasks, it trains all registered tasks of split 'train'. Several harvests, on one machine or on several that share
    the registry's file system, share the work; icmlora harvest status shows who does what.
    """
    if context.invoked_subcommand is not None:
        with session("harvest", as_json=as_json, quiet=quiet):
            _check_alone(context)
        return
    with session("harvest", as_json=as_json, quiet=quiet) as out:
        _check_together(context, "ray" if executor is Executor.ray else "local")
        from icmlora_cli.config.harvest import HarvestRecipe
        from icmlora_cli.config.recipes import resolve
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.select_tasks import tasks_to_learn

        home = Home.from_environment()
        overrides = {"steps": steps, "rank": rank, "seed": seed}
        settings = resolve(HarvestRecipe, recipe, "harvest", overrides)
        chosen = tasks_to_learn(home, tasks)
        from icmlora_cli.workflows.base.pull import resolve as resolve_base
        from icmlora_cli.workflows.harvest import harvest as one
        from icmlora_cli.workflows.harvest import local_workers as several

        with out.progress() as on_progress:
            base_model = resolve_base(base, home, offline=offline, on_progress=on_progress)
            if executor is Executor.ray:
                from icmlora_cli.workflows.harvest import ray_workers

                result = ray_workers.run(
                    chosen, base_model, settings, home, address=address, gpus_per_task=gpus_per_task,
                    on_progress=on_progress,
                )  # fmt: skip
            elif workers == 1:
                result = one.run(
                    chosen, base_model, settings, home, device=device, tasks_per_batch=tasks_per_batch,
                    on_progress=on_progress,
                )  # fmt: skip
            else:
                result = several.run(
                    chosen, base_model, settings, home, workers=workers, device=device,
                    tasks_per_batch=tasks_per_batch, on_progress=on_progress,
                )  # fmt: skip
        out.result(
            {
                "base": base_model.name,
                "trained": list(result.trained),
                "seconds": result.seconds,
                "adapters": [adapter_dict(record) for record in result.records],
            }
        )
        print_adapters(out, result.records)
        for record in result.records:
            if "cut_examples" in record.figures:
                out.note(cut_warning(record, settings.max_length))
        out.note(f"{len(result.trained)} trained, {len(result.records) - len(result.trained)} were there already")
        out.note("next: icmlora train")


@app.command(epilog="Example: icmlora harvest status --json")
def status(
    tasks: Tasks = None,
    base: Base = DEFAULT_BASE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show who harvests what.

    A task is done, at work, interrupted, or not begun. Of a worker it shows machine, process and last heart-beat.
    """
    with session("harvest status", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.bases import BaseStore
        from icmlora_cli.workflows.harvest.status import run
        from icmlora_cli.workflows.select_tasks import tasks_to_learn

        home = Home.from_environment()
        statuses = run(tasks_to_learn(home, tasks), BaseStore(home).slug(base), home)
        out.result(
            {
                "base": base,
                "tasks": [
                    {
                        "task": item.task,
                        "state": item.state,
                        "worker": None if item.worker is None else vars(item.worker),
                        "saved_step": item.saved_step,
                    }
                    for item in statuses
                ],
            }
        )
        rows = [
            (
                item.task,
                item.state,
                "-" if item.worker is None else f"{item.worker.host} {item.worker.pid}",
                "-" if item.worker is None else f"{item.worker.age:.0f} s ago",
                "-" if item.saved_step is None else str(item.saved_step),
            )
            for item in statuses
        ]
        out.table(("task", "state", "worker", "heart-beat", "saved step"), rows)


def cut_warning(record: "AdapterRecord", max_length: int | None) -> str:
    """Return the warning that says how much of a task's examples a harvest did not see."""
    count, tokens, longest = (int(record.figures[name]) for name in ("cut_examples", "cut_tokens", "longest"))
    what = "one example lost" if count == 1 else f"{count:,} examples lost together"
    return (
        f"warning: {record.task}: {what} {tokens:,} tokens to max_length: {max_length} (the longest had {longest:,}); "
        "what was cut was never trained on"
    )


def adapter_dict(record: "AdapterRecord") -> dict[str, object]:
    """Return the JSON form of an adapter, with the folder and the bytes of its last checkpoint."""
    return record.as_dict() | {"folder": str(record.last), "bytes": record.bytes}


def print_adapters(out: Out, records: "Sequence[AdapterRecord]") -> None:
    """Print a table of adapters."""
    rows = [
        (
            record.task,
            record.base,
            "imported" if record.imported else str(record.checkpoints[-1].step),
            f"{record.figures['loss']:.3f}" if "loss" in record.figures else "-",
            f"{record.figures['exact_match']:.2f}" if "exact_match" in record.figures else "-",
            f"{record.figures['bits_per_character']:.3f}" if "bits_per_character" in record.figures else "-",
            f"{record.figures['seconds']:.0f}" if "seconds" in record.figures else "-",
            f"{record.bytes / 1e6:.1f}",
        )
        for record in records
    ]
    out.table(("task", "base", "steps", "loss", "validation EM", "bits/char", "seconds", "MB"), rows)
