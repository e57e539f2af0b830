"""``icmlora recipe``: list, show, copy and check recipes."""

from pathlib import Path
from typing import Annotated

import typer

from icmlora_cli.cli.options import Force, Json, Quiet
from icmlora_cli.cli.out import session

app = typer.Typer(
    help="Recipes, which hold all settings: list, show, copy, validate.",
    epilog="Example: icmlora recipe list",
    no_args_is_help=True,
)

Name = Annotated[Path, typer.Argument(help="A shipped recipe's name, such as harvest/default, or a file.")]


@app.command("list", epilog="Example: icmlora recipe list")
def list_recipes(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the recipes that ship with icmlora."""
    with session("recipe list", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import shipped_recipes

        names = shipped_recipes()
        out.result({"recipes": list(names)})
        for name in names:
            out.line(name)


@app.command(epilog="Example: icmlora recipe show train/default")
def show(name: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """Print a recipe."""
    with session("recipe show", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import recipe_path
        from icmlora_cli.errors import CorruptFileError

        path = recipe_path(name, "")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CorruptFileError(f"{name} is not UTF-8 text", where=str(path), hint="icmlora recipe list") from error
        out.result({"name": str(name), "path": str(path), "text": text})
        out.line(text.rstrip("\n"))


@app.command(epilog="Example: icmlora recipe copy train/default my-train.yaml")
def copy(
    name: Name,
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a recipe, to change it."""
    with session("recipe copy", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import recipe_path
        from icmlora_cli.disk.files import write_bytes
        from icmlora_cli.workflows.output import check_file

        path = recipe_path(name, "")
        check_file(target, force)
        write_bytes(target.absolute(), path.read_bytes())
        out.result({"path": str(target)})
        out.line(str(target) if quiet else f"copied to {target}")


@app.command(epilog="Example: icmlora recipe validate my-train.yaml --kind train")
def validate(
    name: Name,
    kind: Annotated[str, typer.Option("--kind", "-k", help="harvest, train, eval, tasks (a task file), or lists.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a recipe; all its faults are reported at once (exit code 2)."""
    with session("recipe validate", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import KINDS, resolve
        from icmlora_cli.errors import UsageError

        if kind == "tasks":
            from icmlora_cli.config.recipes import recipe_path
            from icmlora_cli.tasks.task_file import read_task_file

            names = [task.name for task in read_task_file(recipe_path(name, kind))]
            out.result({"name": str(name), "kind": kind, "values": {"tasks": names}})
            out.line(str(name) if quiet else f"{name}: a good task file with {len(names)} tasks")
            return
        if kind == "lists":
            from icmlora_cli.config.task_list import read_task_list

            listed = read_task_list(name)
            out.result({"name": str(name), "kind": kind, "values": {"tasks": list(listed)}})
            out.line(str(name) if quiet else f"{name}: a good list of {len(listed)} tasks")
            return
        if kind not in KINDS:
            raise UsageError(f"there is no kind of recipe {kind!r}", hint=f"--kind {', '.join(KINDS)}, tasks or lists")
        recipe = resolve(KINDS[kind], name, kind, {})
        out.result({"name": str(name), "kind": kind, "values": recipe.model_dump(mode="json")})
        out.line(str(name) if quiet else f"{name}: a good {kind} recipe")
