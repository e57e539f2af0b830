"""``icmlora train``: train one generator on all harvested tasks."""

from typing import Annotated

import typer

from icmlora_cli.cli.options import (
    DEFAULT_BASE,
    TRAINING,
    Base,
    Device,
    Json,
    Offline,
    Quiet,
    Recipe,
    Seed,
    Steps,
    Tasks,
)
from icmlora_cli.cli.out import session


def train(
    tasks: Tasks = None,
    base: Base = DEFAULT_BASE,
    recipe: Recipe = None,
    name: Annotated[str, typer.Option("--name", "-n", help="The generator's name.")] = "default",
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="token, conv1d (the paper's) or p-diff (COND P-DIFF).", rich_help_panel=TRAINING),
    ] = None,
    steps: Steps = None,
    seed: Seed = None,
    log_with: Annotated[
        str | None,
        typer.Option(
            "--log-with", help="Log losses with tensorboard, trackio, wandb ... (accelerate).", rich_help_panel=TRAINING
        ),
    ] = None,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a generator on all tasks jointly.

    It learns from harvested adapters and, if the recipe has them, in episodes. Without --tasks, it learns from all
    tasks of split 'train' that are harvested or, with episodes, from all of that split. Tasks of split 'unseen' are
    refused. After an interrupt, the same command goes on where it was. A generator of the same name that learned
    otherwise is moved to quarantine.

    On several GPUs: accelerate launch -m icmlora_cli train
    """
    with session("train", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import resolve
        from icmlora_cli.config.train import TrainRecipe
        from icmlora_cli.disk.home import Home, checked_name
        from icmlora_cli.workflows.select_tasks import tasks_to_train

        home = Home.from_environment()
        overrides = {"arch": arch, "steps": steps, "seed": seed}
        settings = resolve(TrainRecipe, recipe, "train", overrides)
        checked_name(name, "generator")
        chosen = tasks_to_train(home, base, tasks, episodes=settings.episodes is not None)
        from icmlora_cli.workflows.base.pull import resolve as resolve_base
        from icmlora_cli.workflows.progress import silent
        from icmlora_cli.workflows.train.distributed import main_process
        from icmlora_cli.workflows.train.train import run

        with out.progress() as display:
            on_progress = display if main_process() else silent
            base_model = resolve_base(base, home, offline=offline, on_progress=on_progress)
            result = run(
                chosen, base_model, settings, home, name=name, device=device, log_with=log_with, on_progress=on_progress
            )
        if not main_process():
            return
        replaced = None if result.replaced is None else str(result.replaced)
        printed = {"folder": str(result.folder), "tasks": list(result.tasks), "name": name, "replaced": replaced}
        out.result(vars(result) | printed)
        out.forbidden(result.no_derivatives)
        state = "trained" if result.trained else "was there already: same adapters, same recipe"
        out.line(
            str(result.folder)
            if quiet
            else f"generator {name!r} ({state}): {len(result.tasks)} tasks and {result.builtin} built-in ones, "
            f"{result.parameters:,} numbers, {result.bytes / 1e6:.2f} MB, in {result.folder}"
        )
        if replaced is not None:
            out.note(f"the generator that had this name is in {replaced}; icmlora registry gc frees it")
        if result.left_out:
            out.note(
                f"left out of the episodes: {result.left_out} examples with more tokens than episodes.max_tokens allows"
            )
        if result.epochs is not None:
            ends = {True: ", until its loss was flat", False: ", at whose end its loss was not flat", None: ""}
            out.note(f"trained for {result.epochs:.0f} epochs{ends[result.flat]}")
        if result.harvested:
            out.note(
                f"relative error of delta-W on {result.harvested} harvested tasks, from their descriptions: "
                f"{result.error:.3f} (the basis alone: {result.codec_error:.3f})"
            )
        if result.validation is not None:
            out.note(f"validation tasks, from their descriptions: probability of an answer {result.validation:.3f}")
        out.note('next: icmlora gen "what the adapter should do" -o out/   and: icmlora eval')
