"""``icmlora codec``: report what the basis that adapters share keeps of them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from icmlora_cli.cli.options import DEFAULT_BASE, Base, Device, Json, Limit, Offline, Quiet, Recipe, Tasks
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.workflows.adapters.codec_report import CodecReport

app = typer.Typer(
    help="The basis that adapters share: report.",
    epilog="Example: icmlora codec report --per-task",
    no_args_is_help=True,
)


@app.command(epilog="Example: icmlora codec report --widths 8,16,32 --per-task")
def report(
    tasks: Tasks = None,
    base: Base = DEFAULT_BASE,
    recipe: Recipe = None,
    basis: Annotated[
        str | None, typer.Option("--basis", help="learned, frame or auto; the recipe's by default.")
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option("--widths", help="R of each basis; 4,8,16,24,32,48 and the frame's own by default."),
    ] = None,
    limit: Limit = 32,
    no_score: Annotated[
        bool, typer.Option("--no-score", help="Measure the energy only; the base is not loaded.")
    ] = False,
    per_task: Annotated[bool, typer.Option("--per-task", help="List each adapter at each width.")] = False,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what the shared basis keeps of the adapters, and what that costs.

    For each width R, it prints the share of the adapters' energy that the basis keeps, and the tasks' scores on test
    examples before and after. All kept checkpoints of the newest adapters shape the basis, whatever their ranks and
    modules; the last checkpoint of each is measured. Without --tasks, the tasks are those that icmlora train would
    learn from. A train recipe sets basis, frame_seed, frame_width and directions.
    """
    with session("codec report", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.config.recipes import resolve
        from icmlora_cli.config.train import TrainRecipe
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.select_tasks import tasks_to_train

        home = Home.from_environment()
        width_list = None if widths is None else _numbers(widths)
        settings = resolve(TrainRecipe, recipe, "train", {"basis": basis})
        chosen = tasks_to_train(home, base, tasks)
        from icmlora_cli.workflows.adapters.codec_report import run
        from icmlora_cli.workflows.base.pull import resolve as resolve_base

        with out.progress() as on_progress:
            base_model = resolve_base(base, home, offline=offline, on_progress=on_progress)
            result = run(
                chosen, base_model, settings.data, home, widths=width_list, limit=None if no_score else limit,
                device=device, on_progress=on_progress,
            )  # fmt: skip
        out.result(_report_dict(result, base_model.name))
        _print_report(out, result, per_task=per_task)


def _numbers(text: str) -> list[int]:
    """Return the numbers of a list such as ``4,8,16``.

    Raises:
        UsageError: If an item is not a whole number from 1 on.
    """
    from icmlora_cli.errors import UsageError

    pieces = [piece.strip() for piece in text.split(",")]
    wrong = [piece for piece in pieces if re.fullmatch("[1-9][0-9]{0,8}", piece) is None]
    if wrong:
        raise UsageError(
            f"--widths: {wrong[0][:80]!r} is no width: it should be a whole number from 1 on",
            hint="--widths 4,8,16,24,32,48",
        )
    return [int(piece) for piece in pieces]


def _report_dict(done: "CodecReport", base: str) -> dict[str, object]:
    from dataclasses import asdict

    return {"base": base} | asdict(done)


def _print_report(out: Out, done: "CodecReport", *, per_task: bool) -> None:
    if per_task:
        _print_adapters(out, done)
    if not (per_task and out.quiet):  # without headers, the rows of two tables could not be told apart
        _print_widths(out, done)
    if done.unscored:
        out.note(f"not scored, for want of test examples: {', '.join(done.unscored)}")
    where = "max_width in a train recipe" if done.frame_seed is None else "rank in a harvest recipe"
    out.note(f"what sets the width: {where}; icmlora recipe copy")


def _print_widths(out: Out, done: "CodecReport") -> None:
    metrics = [cost.metric for cost in done.widths[0].costs]
    headers = ["R", "used", "numbers", "basis MB", "energy", "worst"]
    headers += [f"{name}, {part}" for name in metrics for part in ("before", "after", "kept")]
    rows = [
        (
            str(item.width),
            str(item.used),
            str(item.numbers),
            f"{item.basis_bytes / 1e6:.2f}",
            f"{item.energy:.4f}",
            f"{item.worst:.4f}",
            *(_figure(value) for cost in item.costs for value in (cost.before, cost.after, cost.kept)),
        )
        for item in done.widths
    ]
    named = "a learned basis" if done.frame_seed is None else f"the frames of seed {done.frame_seed}"
    count = f"{len(done.adapters)} adapters ({done.checkpoints} checkpoints)"
    out.table(headers, rows, title=f"{count} in {named} of {done.modules} modules")


def _print_adapters(out: Out, done: "CodecReport") -> None:
    rows: list[Sequence[str]] = []
    for item in done.widths:
        for adapter, kept in zip(done.adapters, item.adapters, strict=True):
            rows.append(
                (
                    str(item.width),
                    adapter.task,
                    str(adapter.rank),
                    f"{adapter.modules} of {done.modules}",
                    f"{kept.energy:.4f}",
                    adapter.metric or "-",
                    _figure(adapter.before),
                    _figure(kept.after),
                )
            )
    out.table(("R", "task", "rank", "modules", "energy", "metric", "before", "after"), rows)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
