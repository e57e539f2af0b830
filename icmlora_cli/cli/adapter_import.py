"""``icmlora adapter import``: add LoRAs that others trained with PEFT to the registry."""

from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.harvest import adapter_dict
from icmlora_cli.cli.options import DEFAULT_BASE, AnyBaseName, Base, Json, Offline, Quiet
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.workflows.adapters.import_adapters import AdapterImportResult, ImportedAdapter

EPILOG = 'Example: icmlora adapter import ./my-lora --describe "Answers in pirate speech."'


def import_adapter(
    source: Annotated[
        str, typer.Argument(metavar="PATH|HUB_ID", help="A PEFT folder, a folder of such folders, or a hub id.")
    ],
    task: Annotated[str | None, typer.Option("--task", "-t", help="Name of the task that it is for.")] = None,
    describe: Annotated[
        str | None,
        typer.Option("--describe", help="That task in words; makes a task without examples if there is none."),
    ] = None,
    base: Base = DEFAULT_BASE,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Fit or drop what a LoRA cannot hold, and say how much is lost.")
    ] = False,
    rank: Annotated[int | None, typer.Option("--rank", help="Rank of the fits; the adapter's own by default.")] = None,
    any_base_name: AnyBaseName = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read adapter_model.bin too, with torch's weights_only.")
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import LoRAs that others trained.

    They are checked whole, and kept exactly, beside the harvested ones. Folders in a folder become the checkpoints of
    the task that is named; without --task and --describe, each is for the registered task of its name. train, eval and
    gen use imported adapters as they use harvested ones.
    """
    with session("adapter import", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.adapters.import_adapters import ImportRequest, run
        from icmlora_cli.workflows.base.pull import resolve as resolve_base

        home = Home.from_environment()
        request = ImportRequest(source, task, describe, approximate, rank, allow_pickle, any_base_name, offline)
        with out.progress() as on_progress:
            base_model = resolve_base(base, home, offline=offline, on_progress=on_progress)
            result = run(request, base_model, home, on_progress=on_progress)
        out.result(
            {
                "base": base_model.name,
                "described": result.described,
                "adapters": [_dict(item) for item in result.items],
            }
        )
        _print(out, result)


def _dict(item: "ImportedAdapter") -> dict[str, object]:
    part_rows = [vars(part) | {"checkpoint": name} for name, parts in item.parts.items() for part in parts]
    return adapter_dict(item.record) | {"state": item.state, "parts": part_rows, "notes": list(item.notes)}


def _print(out: Out, result: "AdapterImportResult") -> None:
    for item in result.items:
        out.line(str(item.record.last) if out.quiet else f"{item.state}: task {item.record.task}, {item.record.last}")
        lost = [
            (name, part.name, part.what, part.kept, str(part.rank), f"{part.error:.4f}")
            for name, parts in item.parts.items()
            for part in parts
            if part.kept != "exact"
        ]
        exact = sum(part.kept == "exact" for parts in item.parts.values() for part in parts)
        if lost:
            headers = ("checkpoint", "part", "what", "kept", "rank", "relative error of delta-W")
            out.table(headers, lost)
        out.note(f"{exact} parts are held exactly" + (f", {len(lost)} are not" if lost else ""))
        for note in item.notes:
            out.note(f"note: {note}")
    if result.described is not None:
        out.note(f"task {result.described!r} has a description and no examples: it can be trained on, and not scored")
    out.note("next: icmlora adapter show " + result.items[0].record.task + "   and: icmlora train")
