"""``icmlora harvest``: train the LoRAs of many tasks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import DEFAULT_BASE, Base, Device, Json, Offline, Quiet, Recipe, Seed, Tasks
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.registry.adapters import AdapterRecord


def harvest(
    tasks: Tasks = None,
    base: Base = DEFAULT_BASE,
    recipe: Recipe = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimizer steps a task.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Rank of the LoRAs.")] = None,
    seed: Seed = None,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one LoRA for each registered task on the frozen base.

    What is harvested already is not trained again; what was interrupted goes on where it was. Without --tasks,
    all registered tasks of split 'train'.
    """
    with session("harvest", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import HarvestRecipe, resolve
        from icmlora_cli.registry.home import Home
        from icmlora_cli.workflows.select import tasks_to_learn

        home = Home.from_environment()
        overrides = {"steps": steps, "rank": rank, "seed": seed}
        settings = resolve(HarvestRecipe, recipe, "harvest", overrides)
        chosen = tasks_to_learn(home, tasks)
        from icmlora_cli.workflows.base import resolve as resolve_base
        from icmlora_cli.workflows.harvest import run

        with out.progress() as on_progress:
            found = resolve_base(base, home, offline=offline, on_progress=on_progress)
            result = run(chosen, found, settings, home, device=device, on_progress=on_progress)
        out.result(
            {
                "base": found.name,
                "trained": list(result.trained),
                "seconds": result.seconds,
                "adapters": [adapter_dict(record) for record in result.records],
            }
        )
        print_adapters(out, result.records)
        out.note(f"{len(result.trained)} trained, {len(result.records) - len(result.trained)} were there already")
        out.note("next: icmlora train")


def adapter_dict(record: "AdapterRecord") -> dict[str, object]:
    """Return the JSON form of an adapter, with its folder."""
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
