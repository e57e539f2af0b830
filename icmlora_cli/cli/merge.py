"""``icmlora merge``: merge adapters into their base and write one whole model."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from icmlora_cli.cli.options import AnyBaseName, Force, Json, Offline, OtherBase, OutFolder, Quiet
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.workflows.merge.merge import MergeResult

WEIGHTED = re.compile(
    r"(?P<name>.+):(?P<weight>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan))", re.DOTALL | re.IGNORECASE
)


def merge(
    out_folder: OutFolder,
    adapter: Annotated[
        str | None, typer.Argument(help="A task's name (its newest adapter), an adapter's key, or a PEFT folder.")
    ] = None,
    weighted: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter", "-a", metavar="NAME:WEIGHT", help="Instead: one of several, times a weight; repeatable."
        ),
    ] = None,
    base: OtherBase = None,
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option("--dtype", help="Numbers of the written tensors; the base's own by default."),
    ] = None,
    any_base_name: AnyBaseName = False,
    force: Force = False,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Merge adapters into their base, and write one whole model.

    The model needs neither PEFT nor icmlora. It is read, changed and written one tensor after the other, so that memory
    holds a small part of it. The weight of -a is what stands behind its last colon, where that is a number; without one
    it is 1. docs/merging.md says more.
    """
    with session("merge", as_json=as_json, quiet=quiet) as out:
        weights = shares(adapter, weighted or [])
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.base.pull import resolve as resolve_base
        from icmlora_cli.workflows.merge.merge import base_name, find_shares, run

        home = Home.from_environment()
        adapters = find_shares(weights, home)
        with out.progress() as on_progress:
            name = base or base_name(adapters, home)
            base_model = resolve_base(name, home, offline=offline, on_progress=on_progress)
            done = run(
                adapters, out_folder, base_model,
                dtype=dtype, any_base_name=any_base_name, force=force, on_progress=on_progress,
            )  # fmt: skip
        out.result(_dict(done))
        _print(out, done)


def shares(adapter: str | None, weighted: Sequence[str]) -> list[tuple[str, float]]:
    """Return the names and weights of the adapters that the command line asks for.

    A name that itself ends in a colon and a number needs an explicit weight, as in ``v:2:1``.

    Args:
        adapter: The single adapter that is to be merged; None if ``-a`` names them.
        weighted: The values of ``-a``, each ``NAME`` or ``NAME:WEIGHT``.

    Raises:
        UsageError: If no adapter is named, or both ways to name one are used.
    """
    from icmlora_cli.errors import UsageError

    if (adapter is None) == (not weighted):
        raise UsageError(
            "no adapter is named" if adapter is None else "an adapter is named beside -a",
            hint="icmlora merge ADAPTER -o out/   or: icmlora merge -a ADAPTER:0.7 -a OTHER:0.3 -o out/",
        )
    return [(adapter, 1.0)] if adapter is not None else [_weighted(text) for text in weighted]


def _weighted(text: str) -> tuple[str, float]:
    match = WEIGHTED.fullmatch(text)
    return (match["name"], float(match["weight"])) if match else (text, 1.0)


def _dict(done: "MergeResult") -> dict[str, object]:
    adapters = [vars(item) | {"folder": str(item.folder)} for item in done.adapters]
    head = {"folder": str(done.folder), "base": done.base, "adapters": adapters}
    return head | done.model.about() | {"bytes": done.bytes, "seconds": done.seconds}


def _print(out: Out, done: "MergeResult") -> None:
    if out.quiet:
        out.line(str(done.folder))
        return
    if done.model.untied:
        out.note(
            "note: input and output embedding are one tensor in the base; only one of them is changed, so that they "
            "are two here"
        )
    out.line(
        f"merged model, {done.bytes / 1e6:.1f} MB, {done.model.dtype}, {done.model.changed} of {done.model.tensors} "
        f"tensors changed, in {done.folder}"
    )
