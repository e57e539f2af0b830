"""``icmlora registry``: verify what is on disk, free what is not needed, and move things between machines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import Device, DryRun, Force, Json, Quiet, Tasks, Yes
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icmlora_cli.registry.upkeep.archive import Thing
    from icmlora_cli.registry.upkeep.garbage import GarbageItem
    from icmlora_cli.workflows.registry.verify import VerifyResult

app = typer.Typer(
    help="The registry on disk: verify, gc, export, import.",
    epilog="Example: icmlora registry verify",
    no_args_is_help=True,
)

Archive = Annotated[Path, typer.Argument(metavar="FILE", help="A file that icmlora registry export wrote.")]


@app.command(epilog="Example: icmlora registry verify --repair")
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Put back, quarantine, harvest again; nothing is deleted.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes, not hashes.")] = False,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at every file; say what is wrong, what it costs, and what mends it.

    It finds truncated, changed, missing, unlisted and half-written files. Only what makes something unusable counts as
    lost, with exit code 1; what killed work left behind is listed too, with exit code 0.
    """
    with session("registry verify", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.registry.verify import run

        home = Home.from_environment()
        with out.progress() as on_progress:
            result = run(home, quick=quick, repair=repair, device=device, on_progress=on_progress)
        out.result(
            {
                "ok": result.ok,
                "home": str(home.root),
                "checked": dict(result.checked),
                "faults": [fault.as_dict() for fault in result.faults],
                "repairs": [item.as_dict() for item in result.repairs],
                "remaining": result.remaining,
                "seconds": result.seconds,
            }
        )
        _print_faults(out, result)
        if not result.ok:
            raise typer.Exit(1)


def _print_faults(out: Out, result: "VerifyResult") -> None:
    for fault in result.faults:
        if out.quiet:
            out.line(f"{fault.kind}\t{fault.path}")
            continue
        out.line(f"{'LOST' if fault.severe else 'note'}: {fault.kind}: {fault.thing} {fault.name}: {fault.what}")
        out.line(f"  where: {fault.path}\n  costs: {fault.cost}\n  mends: {fault.mend}")
    for item in result.repairs:
        out.line(f"{item.action}: {item.thing} {item.name}: {item.said}")
    counts = ", ".join(f"{count} {thing}{'s' if count != 1 else ''}" for thing, count in result.checked.items())
    severe = sum(fault.severe for fault in result.faults)
    remaining = f"; {result.remaining} left" if result.repairs else ""
    notes = len(result.faults) - severe
    out.note(f"looked at {counts or 'an empty registry'}: {severe} lost{remaining}, {notes} to know")


@app.command(epilog="Example: icmlora registry gc --dry-run")
def gc(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="temporary, states, quarantine, vectors or duplicates; repeatable; all by default."
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what can be freed, ask, and free it.

    It frees temporary files of no running process, states of finished trainings, what is in quarantine, cached task
    vectors, and second copies of equal checkpoints, which become hard links of the first. It never touches the content
    of tasks, adapters, generators, results and base models.
    """
    with session("registry gc", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.registry.gc import GcResult, plan, run

        home = Home.from_environment()
        planned = plan(home, only)
        _print_items(out, planned.free)
        _note_kept(out, planned.kept)
        done = GcResult((), 0)
        if planned.free and not dry_run:
            out.confirm(f"Free {planned.bytes / 1e6:.1f} MB?", yes=yes, again="icmlora registry gc --yes")
            with out.progress() as on_progress:
                done = run(home, planned, on_progress=on_progress)
            _note_kept(out, done.kept)
        out.result(
            {
                "dry_run": dry_run,
                "items": [item.as_dict() for item in (planned.free if dry_run else done.freed)],
                "kept": [item.as_dict() for item in (*planned.kept, *done.kept)],
                "bytes": planned.bytes if dry_run else done.bytes,
            }
        )
        if not quiet:
            message = "nothing to free" if not planned.free else f"{done.bytes / 1e6:.1f} MB freed"
            out.line(f"{planned.bytes / 1e6:.1f} MB would be freed" if dry_run and planned.free else message)


def _note_kept(out: Out, items: "Sequence[GarbageItem]") -> None:
    for item in items:
        out.note(f"kept: {item.path}: {item.said}")


def _print_items(out: Out, items: "Sequence[GarbageItem]") -> None:
    if items or out.quiet:
        out.table(
            ("what", "MB", "of", "where"),
            [(item.what, f"{item.bytes / 1e6:.2f}", item.said, str(item.path)) for item in items],
        )


@app.command(epilog="Example: icmlora registry export --tasks 'pick_*' --adapters 'pick_*' -o mine.tar.zst")
def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.tar.zst", help="The file to write.")],
    tasks: Tasks = None,
    adapters: Annotated[
        list[str] | None, typer.Option("--adapters", "-a", help="Adapters of these tasks or patterns; repeatable.")
    ] = None,
    generators: Annotated[
        list[str] | None, typer.Option("--generators", "-g", help="Names or patterns of generators; repeatable.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write tasks, adapters and generators as one file; all of them if none is named.

    Each is checked first, and what is damaged is not exported. Base models stay here; the other machine pulls its own.
    """
    with session("registry export", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.registry.export import run

        home = Home.from_environment()
        with out.progress() as on_progress:
            result = run(
                home,
                output,
                tasks=tasks,
                adapters_of=adapters,
                generators_named=generators,
                force=force,
                on_progress=on_progress,
            )
        things = [{"kind": item.kind, "name": item.name, "bytes": item.bytes} for item in result.things]
        out.result({"file": str(result.file), "bytes": result.bytes, "things": things, "seconds": result.seconds})
        out.line(str(output) if quiet else f"{_counted(result.things)}: {result.bytes / 1e6:.2f} MB in {output}")
        out.note(f"next, on the other machine: icmlora registry import {output.name}")


@app.command("import", epilog="Example: icmlora registry import mine.tar.zst --dry-run")
def import_archive(
    archive: Archive,
    force: Force = False,
    dry_run: DryRun = False,
    max_gb: Annotated[
        float | None,
        typer.Option("--max-gb", min=0.0, help="What it may unpack to; 0.27 GB or 200 times its size by default."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add what an export holds.

    Nothing is added before every file has been compared with its hash. A different thing of the same name is an error;
    --force replaces it, and puts what was there into quarantine.
    """
    with session("registry import", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.bases import pull_command
        from icmlora_cli.workflows.registry.import_archive import run

        most = None if max_gb is None else round(max_gb * 1e9)
        with out.progress() as on_progress:
            result = run(
                Home.from_environment(), archive, force=force, dry_run=dry_run, most=most, on_progress=on_progress
            )
        out.result(
            {
                "file": str(archive),
                "dry_run": dry_run,
                "things": [
                    {
                        "kind": item.thing.kind,
                        "name": item.thing.name,
                        "bytes": item.thing.bytes,
                        "state": item.state,
                        "aside": None if item.aside is None else str(item.aside),
                    }
                    for item in result.things
                ],
                "bases": result.bases,
                "seconds": result.seconds,
            }
        )
        out.table(
            ("state", "what", "name", "MB"),
            [(i.state, i.thing.kind, i.thing.name, f"{i.thing.bytes / 1e6:.2f}") for i in result.things],
        )
        for item in result.things:
            if item.aside is not None:
                out.note(f"{item.thing.kind} {item.thing.name}: what was there is in {item.aside.parent}")
        for base, at_hand in result.bases.items():
            if not at_hand:
                out.note(f"its base model {base} is not here; next: {pull_command(base)}")
        if dry_run:
            out.note("nothing was imported: --dry-run")


def _counted(things: "Sequence[Thing]") -> str:
    kinds = [thing.kind for thing in things]
    return ", ".join(f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) != 1)}" for kind in dict.fromkeys(kinds))
