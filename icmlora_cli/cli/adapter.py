"""``icmlora adapter``: the harvested adapters of the registry."""

import sys
from typing import Annotated

import typer

from icmlora_cli.cli.harvest import adapter_dict, print_adapters
from icmlora_cli.cli.options import Json, Quiet
from icmlora_cli.cli.out import session

app = typer.Typer(help="Harvested adapters: list, show, remove.", no_args_is_help=True, rich_markup_mode=None)

Task = Annotated[str, typer.Argument(help="The task's name.")]


@app.command("list", epilog="Example: icmlora adapter list")
def list_adapters(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the harvested adapters."""
    with session("adapter list", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.registry.adapters import AdapterStore
        from icmlora_cli.registry.home import Home

        records = AdapterStore(Home.from_environment()).all()
        out.result({"adapters": [adapter_dict(record) for record in records]})
        if records or quiet:
            print_adapters(out, records)
        else:
            out.line("no adapter here yet; train some with: icmlora harvest")


@app.command(epilog="Example: icmlora adapter show pick_last_of_3")
def show(task: Task, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show a task's adapters: folders, checkpoints, figures, how they were made."""
    with session("adapter show", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.errors import NotFound
        from icmlora_cli.registry.adapters import AdapterStore
        from icmlora_cli.registry.home import Home

        store = AdapterStore(Home.from_environment())
        records = [record for record in store.all() if record.task == task]
        if not records:
            raise NotFound(
                f"task {task!r} has no adapters", where=str(store.home.adapters), hint=f"icmlora harvest --tasks {task}"
            )
        for record in records:
            for checkpoint in record.checkpoints:
                store.checked(record, checkpoint)
        out.result({"adapters": [adapter_dict(record) for record in records]})
        print_adapters(out, records)
        for record in records:
            out.line(str(record.last))


@app.command(epilog="Example: icmlora adapter remove pick_last_of_3 --yes")
def remove(
    task: Task,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete all adapters of a task."""
    with session("adapter remove", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.errors import UsageFault
        from icmlora_cli.registry.adapters import AdapterStore
        from icmlora_cli.registry.home import Home, checked_name

        checked_name(task, "task")  # it is looked for as a folder: '..' would be the whole registry
        if not yes:
            if as_json or not sys.stdin.isatty():
                raise UsageFault("not removed: nobody can be asked here", hint=f"icmlora adapter remove {task} --yes")
            typer.confirm(f"delete all adapters of {task!r}?", abort=True, err=True)
        freed = AdapterStore(Home.from_environment()).remove(task)
        out.result({"task": task, "freed": freed})
        out.line(str(freed) if quiet else f"deleted {freed / 1e6:.1f} MB")
