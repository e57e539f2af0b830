"""``icmlora plan``: what a base and its recipes take, before anything is fetched or trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from icmlora_cli.cli.options import DEFAULT_BASE, WHERE, Base, Json, Offline, Quiet
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.workflows.plan.plan import PlanResult

TASKS = "What is planned for"


def plan(
    recipes: Annotated[
        list[Path], typer.Argument(help="A recipe of harvest, one of train, or both: files or shipped names.")
    ],
    base: Base = DEFAULT_BASE,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="Number of tasks.", rich_help_panel=TASKS)] = 100,
    tokens: Annotated[
        int, typer.Option("--tokens", min=2, help="Tokens of the longest rows.", rich_help_panel=TASKS)
    ] = 128,
    answer: Annotated[int, typer.Option("--answer", min=1, help="Tokens of their answers.", rich_help_panel=TASKS)] = 8,
    device_memory: Annotated[
        str | None,
        typer.Option(
            "--device-memory",
            help="Memory of the device, such as 80GB; this machine's by default.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"],
        typer.Option("--dtype", help="The base's dtype.", rich_help_panel=WHERE),
    ] = "bfloat16",
    tflops: Annotated[
        float,
        typer.Option(
            "--tflops", min=1e-3, help="Peak of the device in TFLOP/s (989: one H100, bf16).", rich_help_panel=WHERE
        ),
    ] = 989.0,
    utilisation: Annotated[
        float,
        typer.Option(
            "--utilisation", min=1e-3, max=1.0, help="Share of the peak that is reached.", rich_help_panel=WHERE
        ),
    ] = 0.3,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what recipes take on a base: memory, FLOPs, hours.

    Nothing but the base's config.json is needed, so that a base can be planned for before it is fetched: a folder with
    that file will do. Passes are run without data, on torch's meta device. Hours are the FLOPs at the stated peak and
    utilisation. The exit code is 0 whether it fits or not.
    """  # fmt: skip
    with session("plan", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.doctor import largest_memory
        from icmlora_cli.workflows.plan.phases import PlanOptions
        from icmlora_cli.workflows.plan.plan import run
        from icmlora_cli.workflows.plan.sources import read_size

        memory = largest_memory() if device_memory is None else read_size(device_memory)
        options = PlanOptions(tasks, tokens, answer, memory, dtype, tflops, utilisation)
        with out.progress() as on_progress:
            result = run(recipes, base, options, Home.from_environment(), offline=offline, on_progress=on_progress)
        out.result(plan_dict(result))
        _print(out, result)


def plan_dict(result: "PlanResult") -> dict[str, object]:
    """Return the JSON form of a plan."""
    phases = [vars(phase) | {"bytes": phase.bytes} for phase in result.phases]
    return vars(result) | {"options": vars(result.options), "phases": phases, "fits": result.fits}


def _print(out: Out, result: "PlanResult") -> None:
    options = result.options
    if not out.quiet:
        out.line(
            f"{result.base}: {result.architecture}, {result.parameters:,} parameters in {options.dtype}, adapters on "
            f"{result.modules} modules"
        )
        out.line(
            f"{options.tasks:,} tasks, rows of {options.tokens:,} tokens with answers of {options.answer:,}; "
            f"{options.utilisation:.0%} of {options.tflops:,g} TFLOP/s; {options.device_memory / 1e9:,.1f} GB"
        )
    headers = ("phase", "trained", "rows", "weights GB", "cores GB", "optimiser GB", "activations GB", "all GB")
    rows = [
        (
            phase.name,
            f"{phase.numbers:,}",
            str(phase.rows),
            *(f"{size / 1e9:.3f}" for size in (phase.weights, phase.cores, phase.optimiser, phase.activations)),
            f"{phase.bytes / 1e9:.3f}",
            f"{phase.flops:.2e}",
            _time(phase.hours),
            "yes" if phase.fits else "NO",
        )
        for phase in result.phases
    ]
    out.table((*headers, "FLOP", "time", "fits"), rows)
    for phase in result.phases:
        if phase.readings:
            out.note(f"{phase.name} keeps readings in main memory: {phase.readings / 1e9:.3f} GB")
        if not phase.fits:
            out.note(f"{phase.name} does not fit; rows at once that would: {phase.most_rows:,}")


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.2g} s"
