"""The ``icmlora`` command, which joins all commands and sets the order in which ``--help`` lists them."""

import os
from collections.abc import Callable
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
    plan,
    play,
    push,
    recipe,
    registry,
    report,
    serve,
    storage,
    task,
    train,
)
from icmlora_cli.cli.help import HelpCommand, HelpGroup

PANELS = {
    "Start here": ("demo", "play", "doctor", "recipe", "plan"),
    "Main job": ("harvest", "train", "gen", "eval", "report"),
    "Your things": ("task", "base", "adapter", "registry", "storage", "codec"),
    "Take it away": ("merge", "finetune", "serve", "push"),
}
VERBS: dict[str, tuple[Callable[..., None], str]] = {
    "demo": (demo.demo, "icmlora demo"),
    "play": (play.play, "icmlora play"),
    "doctor": (doctor.doctor, "icmlora doctor --json"),
    "plan": (plan.plan, "icmlora plan harvest/frame --base meta-llama/Llama-3.1-8B-Instruct --device-memory 80GB"),
    "train": (train.train, "icmlora train --name mine"),
    "gen": (gen.gen, 'icmlora gen "Give the last of the three words." -o out/'),
    "eval": (evaluate.evaluate, "icmlora eval --tasks 'pick_*' --limit 50"),
    "storage": (storage.storage, "icmlora storage --json"),
    "merge": (merge.merge, "icmlora merge pick_last_of_3 -o model/"),
    "finetune": (finetune.finetune, "icmlora finetune --from out/ --examples few.jsonl -o tuned/"),
    "serve": (serve.serve, "icmlora serve -g default --port 8000"),
    "push": (push.push, "icmlora push out/ me/antonyms --private"),
}
GROUPS = {
    "recipe": recipe.app,
    "harvest": harvest.app,
    "report": report.app,
    "task": task.app,
    "base": base.app,
    "adapter": adapter.app,
    "registry": registry.app,
    "codec": codec.app,
}


class _InPanels(HelpGroup):
    """Lists the commands in the order of the panels; Typer alone would list every verb before every noun."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [name for names in PANELS.values() for name in names]


app = typer.Typer(
    name="icmlora",
    cls=_InPanels,
    help="Generate LoRA adapters from a task in words. Start with: icmlora demo",
    epilog="Example: icmlora demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
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


for _panel, _names in PANELS.items():
    for _name in _names:
        if _name in VERBS:
            _function, _example = VERBS[_name]
            app.command(_name, epilog=f"Example: {_example}", rich_help_panel=_panel)(_function)
        else:
            app.add_typer(GROUPS[_name], name=_name, cls=HelpGroup, rich_help_panel=_panel)
for _typer in (app, *GROUPS.values()):
    for _command in _typer.registered_commands:
        _command.cls = HelpCommand
