"""``icmlora finetune``: a generated adapter, trained on with a few examples."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from icmlora_cli.cli.options import DEFAULT_BASE, Device, Force, Json, Offline, Quiet
from icmlora_cli.cli.out import session

ZERO = "zero"


def finetune(
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    examples: Annotated[Path, typer.Option("--examples", help="Examples of the task: JSONL, CSV or Parquet.")],
    start: Annotated[
        str, typer.Option("--from", help="Adapter to start from: a folder that gen wrote, or any LoRA of PEFT's.")
    ] = ZERO,
    base: Annotated[
        str | None, typer.Option("--base", "-b", help="Base model; by default the one that the adapter names.")
    ] = None,
    template: Annotated[
        Literal["qa", "chat", "text"], typer.Option("--template", help="How examples are written, as in a task file.")
    ] = "qa",
    steps: Annotated[int | None, typer.Option("--steps", help="Optimizer steps; 20 if not said.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak of the one-cycle schedule; 0.001 if not said.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples a step; 12 if not said.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="From zero: rank of the LoRA; 4 if not said.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the order of the examples; from zero, of A too.")
    ] = None,
    force: Force = False,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train an adapter on with a few examples; the loss is on their answers.

    Without --from, or with --from zero, it starts with delta-W zero: what the same examples give without a generator.
    Interrupted, the same command goes on where it was. The same seed gives the same bytes.
    """
    with session("finetune", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import HarvestRecipe, resolve
        from icmlora_cli.disk.home import Home
        from icmlora_cli.errors import UsageError

        if start != ZERO and rank is not None:
            raise UsageError("--rank is for --from zero: an adapter keeps its own", hint="leave out --rank")
        from icmlora_cli.workflows.base.pull import resolve as resolve_base
        from icmlora_cli.workflows.finetune import DEFAULTS, base_of, run

        given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "rank": rank, "seed": seed}
        said = {name: value for name, value in given.items() if value is not None}
        recipe = resolve(HarvestRecipe, None, "harvest", DEFAULTS.model_dump() | said)
        parent = None if start == ZERO else Path(start).expanduser()
        named = DEFAULT_BASE if parent is None else base_of(parent)
        with out.progress() as on_progress:
            found = resolve_base(base or named, Home.from_environment(), offline=offline, on_progress=on_progress)
            result = run(
                out_folder, examples, found, recipe,
                parent=parent, template=template, force=force, device=device, on_progress=on_progress,
            )  # fmt: skip
        own = {"folder": str(result.folder), "parent": None if result.parent is None else str(result.parent)}
        out.result(vars(result) | own)
        out.forbidden(result.no_derivatives)
        out.line(
            str(result.folder)
            if quiet
            else f"adapter of rank {result.rank}, {result.steps} steps on {result.examples} examples, NLL "
            f"{result.before:.4f} -> {result.after:.4f} nats a token, in {result.folder}"
        )
