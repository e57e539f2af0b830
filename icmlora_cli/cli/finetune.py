"""``icmlora finetune``: train an adapter further on a few examples."""

from pathlib import Path
from typing import Annotated

import typer

from icmlora_cli.cli.options import (
    DEFAULT_BASE,
    EXAMPLES,
    TRAINING,
    Device,
    Force,
    Json,
    Offline,
    OtherBase,
    OutFolder,
    Quiet,
    Template,
)
from icmlora_cli.cli.out import session

ZERO = "zero"


def finetune(
    out_folder: OutFolder,
    examples: Annotated[
        Path,
        typer.Option(
            "--examples", help="Examples of the task: JSON, JSONL, CSV, TSV or Parquet.", rich_help_panel=EXAMPLES
        ),
    ],
    start: Annotated[
        str, typer.Option("--from", help="Adapter to start from: a folder that gen wrote, or any LoRA of PEFT's.")
    ] = ZERO,
    base: OtherBase = None,
    template: Template = "qa",
    steps: Annotated[
        int | None, typer.Option("--steps", help="Optimizer steps; 20 by default.", rich_help_panel=TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", help="Peak of the one-cycle schedule; 0.001 by default.", rich_help_panel=TRAINING
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Examples a step; 12 by default.", rich_help_panel=TRAINING)
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="From zero: rank of the LoRA; 4 by default.", rich_help_panel=TRAINING)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Seed of the order of the examples; from zero, of A too.", rich_help_panel=TRAINING
        ),
    ] = None,
    force: Force = False,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train an adapter further on a few examples; the loss is on their answers.

    Without --from, or with --from zero, it starts with delta-W zero, which shows what the same examples give without a
    generator. After an interrupt, the same command goes on where it was. The same seed gives the same bytes.
    """
    with session("finetune", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.harvest import HarvestRecipe
        from icmlora_cli.config.recipes import resolve
        from icmlora_cli.disk.home import Home
        from icmlora_cli.errors import UsageError

        if start != ZERO and rank is not None:
            raise UsageError("--rank is for --from zero: an adapter keeps its own", hint="leave out --rank")
        from icmlora_cli.workflows.base.pull import resolve as resolve_base
        from icmlora_cli.workflows.finetune import DEFAULTS, FinetuneRequest, base_of, run

        options = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "rank": rank, "seed": seed}
        overrides = {name: value for name, value in options.items() if value is not None}
        recipe = resolve(HarvestRecipe, None, "harvest", DEFAULTS.model_dump() | overrides)
        parent = None if start == ZERO else Path(start).expanduser()
        default_base = DEFAULT_BASE if parent is None else base_of(parent)
        home = Home.from_environment()
        with out.progress() as on_progress:
            base_model = resolve_base(base or default_base, home, offline=offline, on_progress=on_progress)
            request = FinetuneRequest(examples, recipe, parent, template)
            result = run(out_folder, request, base_model, force=force, device=device, on_progress=on_progress)
        paths = {"folder": str(result.folder), "parent": None if result.parent is None else str(result.parent)}
        out.result(vars(result) | paths)
        out.forbidden(result.no_derivatives)
        for note in result.notes:
            out.note(f"note: {note}")
        out.line(
            str(result.folder)
            if quiet
            else f"adapter of rank {result.rank}, {result.steps} steps on {result.examples} examples, NLL "
            f"{result.before:.4f} -> {result.after:.4f} nats a token, in {result.folder}"
        )
