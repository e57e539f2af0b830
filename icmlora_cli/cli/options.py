"""Options that several commands share, and the names of the panels in which ``--help`` shows them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_BASE = "smollm2-135m"
WHERE = "Where it runs"
WRITTEN = "What is written"
TRAINING = "Training"
EXAMPLES = "Examples"

Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks", "-t", help="Task names, patterns such as 'choose_*', or @LIST, a file of them; repeatable."
    ),
]
Base = Annotated[
    str, typer.Option("--base", "-b", help="Base model: an alias, a hub id, or a local folder.", show_default=True)
]
OtherBase = Annotated[
    str | None, typer.Option("--base", "-b", help="Base model; by default the one that the adapter was made for.")
]
Generator = Annotated[str | None, typer.Option("--generator", "-g", help="A generator's name or folder.")]
Recipe = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="YAML recipe: a file, or the name of one that ships with icmlora.")
]
Adapter = Annotated[str, typer.Argument(help="A task's name (its newest adapter), an adapter's key, or a PEFT folder.")]

Steps = Annotated[int | None, typer.Option("--steps", help="Optimizer steps.", rich_help_panel=TRAINING)]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random in this command.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Test examples a task, at most.")]
Template = Annotated[
    Literal["qa", "chat", "text"],
    typer.Option("--template", help="How examples are written, as in a task file.", rich_help_panel=EXAMPLES),
]
AnyBaseName = Annotated[
    bool, typer.Option("--any-base-name", help="Take adapters that name another base; their shapes must still fit.")
]

OutFolder = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what is there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, mps or xpu; the best one found by default.", rich_help_panel=WHERE),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Use only what is on this machine (as HF_HUB_OFFLINE=1).", rich_help_panel=WHERE),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the bare result: no progress, no hints.")]
