"""``icmlora gen``: words in, an adapter out."""

from pathlib import Path
from typing import Annotated

import typer

from icmlora_cli.cli.options import Device, Force, Json, Offline, Quiet
from icmlora_cli.cli.out import session


def gen(
    task_text: Annotated[str, typer.Argument(help="What the adapter should do, in a sentence.")],
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    generator: Annotated[str, typer.Option("--generator", "-g", help="A generator's name or folder.")] = "default",
    base: Annotated[
        str | None, typer.Option("--base", "-b", help="Base model; the generator's own by default.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Write the whole merged model instead of an adapter.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**63 - 1, help="Sample z with this seed; without it, z is the prior's mean."
        ),
    ] = None,
    force: Force = False,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate the LoRA adapter of a task from its description.

    Writes a PEFT folder that PeftModel.from_pretrained loads, or with --merge a model that
    AutoModelForCausalLM.from_pretrained loads. The same text, generator and seed give the same bytes.
    """
    with session("gen", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.registry.generators import GeneratorStore
        from icmlora_cli.registry.home import Home

        home = Home.from_environment()
        folder = GeneratorStore(home).find(generator)
        from icmlora_cli.workflows.base import resolve as resolve_base
        from icmlora_cli.workflows.gen import base_name, run

        with out.progress() as on_progress:
            name = base or base_name(folder) or "smollm2-135m"
            found = resolve_base(name, home, offline=offline, on_progress=on_progress)
            result = run(
                task_text, out_folder, folder, found, home,
                merged=merge, seed=seed, force=force, device=device, on_progress=on_progress,
            )  # fmt: skip
        out.result(vars(result) | {"folder": str(result.folder), "seed": seed})
        what = "merged model" if result.merged else f"adapter of rank {result.rank}"
        out.line(str(result.folder) if quiet else f"{what}, {result.bytes / 1e6:.1f} MB, in {result.folder}")
