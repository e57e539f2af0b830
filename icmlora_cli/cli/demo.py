"""``icmlora demo``: harvest, train, generate and score on six small tasks, in five minutes."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from icmlora_cli.cli.evaluate import eval_dict, print_comparison
from icmlora_cli.cli.options import Device, Json, Offline, Quiet
from icmlora_cli.cli.out import session
from icmlora_cli.cli.storage import storage_dict, storage_line


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="The demo's own registry.")] = Path("icmlora-demo"),
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole idea on SmolLM2-135M, in five minutes.

    It harvests 6 tasks, trains one generator, and generates and scores adapters. This takes about 5 minutes on 2 idle
    CPU cores, and fetches 93 MB once. After an interrupt, the same command goes on where it was.
    """
    with session("demo", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home

        home = Home(root=folder.expanduser().absolute(), cache=Home.from_environment().cache)
        out.note(f"demo in {folder}: 6 tasks are harvested, a generator learns them, and adapters come from words")
        from icmlora_cli.workflows.demo import run

        with out.progress() as on_progress:
            result = run(home, device=device, offline=offline, on_progress=on_progress)
        out.result(
            {
                "home": str(result.home),
                "evaluation": eval_dict(result.evaluation),
                "storage": storage_dict(result.storage),
                "adapter": str(result.adapter),
                "task_text": result.task_text,
                "seconds": result.seconds,
            }
        )
        print_comparison(out, result.evaluation)
        for generator in result.storage.generators:
            out.line(storage_line(generator))
        out.line(f"adapter for {result.task_text!r}: {os.path.relpath(result.adapter)}")
        out.note(f"done in {result.seconds:.0f} s; try next:")
        for command in next_commands(folder, result.task_text, result.evaluation.folder):
            out.note(f"  {command}")


def next_commands(folder: Path, text: str, evaluation: Path) -> tuple[str, str, str]:
    """Return three commands to try next.

    Args:
        folder: The demo's registry.
        text: The task text of the adapter that the demo generated.
        evaluation: The folder of the demo's comparison.
    """
    icmlora = f"icmlora --home {shlex.quote(str(folder))}"
    results = shlex.quote(os.path.relpath(evaluation))
    return (
        f"{icmlora} play -g demo --results {results}",
        f"{icmlora} gen {shlex.quote(text)} --generator demo --merge -o merged/",
        f"{icmlora} eval --generator demo --tasks 'pick_*'",
    )
