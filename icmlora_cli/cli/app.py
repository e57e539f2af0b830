"""The ``icmlora`` command: puts the nouns and verbs together."""

import os
from pathlib import Path
from typing import Annotated

import typer

from icmlora_cli.cli import (
    adapter,
    base,
    codec,
    demo,
    doctor,
    evaluate,
    finetune,
    gen,
    harvest,
    merge,
    push,
    recipe,
    registry,
    report,
    serve,
    storage,
    task,
    train,
)

app = typer.Typer(
    name="icmlora",
    help="Generate LoRA adapters from a task in words. Start with: icmlora demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from icmlora_cli import __version__

        print(f"icmlora {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    home: Annotated[
        Path | None, typer.Option("--home", help="Registry folder for this command; ICMLORA_HOME does the same.")
    ] = None,
) -> None:
    if home is not None:
        os.environ["ICMLORA_HOME"] = str(home if str(home).startswith("~") else home.absolute())


app.add_typer(task.app, name="task")
app.add_typer(base.app, name="base")
app.add_typer(adapter.app, name="adapter")
app.add_typer(codec.app, name="codec")
app.add_typer(registry.app, name="registry")
app.add_typer(recipe.app, name="recipe")
app.add_typer(report.app, name="report")
app.add_typer(harvest.app, name="harvest")
app.command(epilog="Example: icmlora train --name mine")(train.train)
app.command(epilog='Example: icmlora gen "Give the last of the three words." -o out/')(gen.gen)
app.command(epilog=merge.EPILOG)(merge.merge)
app.command(epilog="Example: icmlora finetune --from out/ --examples few.jsonl -o tuned/")(finetune.finetune)
app.command(epilog=serve.EPILOG)(serve.serve)
app.command("eval", epilog="Example: icmlora eval --tasks 'pick_*' --limit 50")(evaluate.evaluate)
app.command(epilog="Example: icmlora push out/ me/antonyms --private")(push.push)
app.command(epilog="Example: icmlora storage --json")(storage.storage)
app.command(epilog="Example: icmlora demo")(demo.demo)
app.command(epilog=doctor.EPILOG)(doctor.doctor)
