"""The ``icmlora`` command: puts the nouns and verbs together."""

from typing import Annotated

import typer

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
) -> None:
    pass
