"""``icmlora adapter``: import, export, list, show, compare and remove adapters."""

from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli import adapter_export, adapter_import
from icmlora_cli.cli.harvest import adapter_dict, print_adapters
from icmlora_cli.cli.options import Adapter, Json, Quiet, Yes
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.weights.compare import Closeness
    from icmlora_cli.workflows.adapters.facts import AdapterFacts, Difference

app = typer.Typer(
    help="Adapters, harvested and imported: import, export, list, show, diff, remove.",
    epilog="Example: icmlora adapter list",
    no_args_is_help=True,
)
app.command("import", epilog=adapter_import.EPILOG)(adapter_import.import_adapter)
app.command("export", epilog=adapter_export.EPILOG)(adapter_export.export_adapter)

Task = Annotated[str, typer.Argument(help="The task's name.")]


@app.command("list", epilog="Example: icmlora adapter list")
def list_adapters(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the adapters, harvested and imported."""
    with session("adapter list", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.adapters import AdapterStore

        records, broken = AdapterStore(Home.from_environment()).scan()
        for manifest in broken:
            out.note(f"warning: {manifest} is damaged; icmlora registry verify")
        out.result({"adapters": [adapter_dict(record) for record in records]})
        if records or quiet:
            print_adapters(out, records)
        else:
            out.line(
                "no adapter here yet; train some: icmlora harvest, or: icmlora adapter import PATH --describe TEXT"
            )


@app.command(epilog="Example: icmlora adapter show pick_last_of_3")
def show(
    task: Task,
    nearest: Annotated[int, typer.Option("--nearest", min=0, help="How many other adapters to compare with.")] = 3,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a task's adapters and how they were made.

    It prints their figures, norms by layer, effective ranks, and the nearest other adapters.
    """
    with session("adapter show", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.errors import NotFoundError
        from icmlora_cli.registry.adapters import AdapterStore

        store = AdapterStore(Home.from_environment())
        records = [record for record in store.all() if record.task == task]
        if not records:
            raise NotFoundError(
                f"task {task!r} has no adapters", where=str(store.home.adapters), hint=f"icmlora harvest --tasks {task}"
            )
        for record in records:
            for checkpoint in record.checkpoints:
                store.checked(record, checkpoint)
        from icmlora_cli.workflows.adapters.facts import facts

        weights = [facts(store, record, nearest=nearest) for record in records]
        out.result(
            {
                "adapters": [adapter_dict(record) for record in records],
                "weights": [_facts_dict(item) for item in weights],
            }
        )
        print_adapters(out, records)
        for record, item in zip(records, weights, strict=True):
            if not quiet:
                _print_facts(out, item)
                if record.imported:
                    out.line(f"imported from {record.imported.source}, licence {record.about.licence or '-'}")
            out.line(str(record.last))


def _facts_dict(item: "AdapterFacts") -> dict[str, object]:
    lists = {"layers": [vars(one) for one in item.layers], "nearest": [vars(one) for one in item.nearest]}
    ranks = {str(rank): count for rank, count in item.ranks.items()}
    return vars(item) | lists | {"ranks": ranks, "dtypes": list(item.dtypes)}


def _print_facts(out: Out, item: "AdapterFacts") -> None:
    ranks = ", ".join(f"rank {rank} on {count} modules" for rank, count in item.ranks.items())
    out.line(f"{item.task} {item.key}: {ranks}, {', '.join(item.dtypes)}")
    rows = [
        (
            "-" if layer.layer is None else str(layer.layer),
            str(layer.modules),
            f"{layer.norm:.4g}",
            f"{layer.effective_rank:.2f}",
        )
        for layer in item.layers
    ]
    rows.append(("all", str(sum(item.ranks.values())), f"{item.norm:.4g}", f"{item.effective_rank:.2f}"))
    out.table(("layer", "modules", "norm of delta-W", "effective rank"), rows)
    if item.nearest:
        nearest = [(one.task, one.key, f"{one.cosine:+.3f}") for one in item.nearest]
        out.table(("nearest others", "key", "cosine of delta-W"), nearest)


@app.command(epilog="Example: icmlora adapter diff pick_last_of_3 ./my-lora")
def diff(first: Adapter, second: Adapter, as_json: Json = False, quiet: Quiet = False) -> None:
    """Compare two adapters by delta-W.

    It prints the error of the second one relative to the first, and their cosine.
    """
    with session("adapter diff", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.adapters import AdapterStore
        from icmlora_cli.workflows.adapters.facts import difference

        result = difference(AdapterStore(Home.from_environment()), first, second)
        out.result(_difference_dict(result))
        whole = result.comparison.all
        if quiet:
            out.line(f"{whole.error:.6f}\t{whole.cosine:.6f}")
            return
        for side in (result.first, result.second):
            adapter = side.adapter
            out.line(f"{side.name}: {len(adapter.factors)} modules, rank {adapter.rank}, alpha {adapter.alpha:g}")
        rows = [_row("all", whole)]
        rows += [_row(f"layer {index}", item) for index, item in result.comparison.by_layer.items()]
        rows += [_row(name, item) for name, item in result.comparison.by_type.items()]
        out.table(("where", "relative error", "cosine"), rows)
        for side, modules in ((result.first, result.only_first), (result.second, result.only_second)):
            if modules:
                out.line(f"only {side.name} is on {len(modules)} modules, {modules[0]} the first of them")


def _row(name: str, item: "Closeness") -> tuple[str, str, str]:
    return name, f"{item.error:.4f}", f"{item.cosine:+.4f}"


def _finite(item: "Closeness") -> dict[str, float | None]:
    """Return the JSON form; the error relative to a delta-W of zero is infinite, which JSON writes as null."""
    return {"error": item.error if item.error != float("inf") else None, "cosine": item.cosine}


def _difference_dict(result: "Difference") -> dict[str, object]:
    comparison = result.comparison
    return {
        "first": result.first.name,
        "second": result.second.name,
        "only_first": list(result.only_first),
        "only_second": list(result.only_second),
        "all": _finite(comparison.all),
        "by_layer": {str(layer): _finite(item) for layer, item in comparison.by_layer.items()},
        "by_type": {name: _finite(item) for name, item in comparison.by_type.items()},
    }


@app.command(epilog="Example: icmlora adapter remove pick_last_of_3 --yes")
def remove(
    task: Task,
    key: Annotated[
        str | None, typer.Option("--key", help="Key of one adapter; by default, all of the task are deleted.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete the adapters of a task, or one of them."""
    with session("adapter remove", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home, checked_name
        from icmlora_cli.registry.adapters import AdapterStore

        checked_name(task, "task")  # the name becomes a folder's, and '..' would remove the whole registry
        if key is not None:
            checked_name(key, "key")
        what = f"all adapters of {task!r}" if key is None else f"adapter {key} of {task!r}"
        out.confirm(f"Remove {what}?", yes=yes, again=f"icmlora adapter remove {task} --yes")
        freed = AdapterStore(Home.from_environment()).remove(task, key=key)
        out.result({"task": task, "key": key, "freed": freed})
        out.line(str(freed) if quiet else f"deleted {freed / 1e6:.1f} MB")
