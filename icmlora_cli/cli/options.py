"""Option aliases that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the bare result: no progress, no hints.")]
Base = Annotated[
    str, typer.Option("--base", "-b", help="Base model: an alias, a hub id, or a local folder.", show_default=True)
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine (as HF_HUB_OFFLINE=1).")]
Recipe = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="YAML recipe: a file, or the name of one that ships with icmlora.")
]
Tasks = Annotated[
    list[str] | None, typer.Option("--tasks", "-t", help="Task names or patterns such as 'choose_*'; repeatable.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random in this command.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what is there.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps or xpu; the best one found by default.")]

DEFAULT_BASE = "smollm2-135m"
