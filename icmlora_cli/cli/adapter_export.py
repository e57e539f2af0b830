"""``icmlora adapter export``: write one adapter as a GGUF file for llama.cpp, or as a PEFT folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from icmlora_cli.cli.options import Adapter, Force, Json, OtherBase, Quiet
from icmlora_cli.cli.out import session

EPILOG = "Example: icmlora adapter export pick_last_of_3 --format gguf -o pick_last.gguf"


def export_adapter(
    adapter: Adapter,
    output: Annotated[Path, typer.Option("--out", "-o", help="The GGUF file or PEFT folder to write.")],
    output_format: Annotated[
        Literal["gguf", "peft"], typer.Option("--format", help="A file for llama.cpp, or a PEFT folder with its card.")
    ] = "peft",
    dtype: Annotated[
        Literal["fp32", "fp16"] | None, typer.Option("--dtype", help="Numbers of the GGUF tensors; fp32 by default.")
    ] = None,
    base: OtherBase = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one adapter for other programs, as GGUF or as a PEFT folder.

    GGUF is what llama.cpp takes (--lora FILE); it is for plain LoRAs of Llama, Mistral, GPT-2, Qwen2, Qwen3, Gemma3 and
    Phi3. The base's configuration has to be at hand; its weights are not read.
    """
    with session("adapter export", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.adapters.export import run

        result = run(adapter, output, Home.from_environment(), form=output_format, dtype=dtype, base=base, force=force)
        out.result(vars(result) | {"output": str(result.output)})
        if quiet:
            out.line(str(result.output))
            return
        out.line(f"{result.modules} modules, rank {result.rank}, {result.bytes / 1e6:.2f} MB, in {result.output}")
        out.note(f"it is for {result.base_model}")
        if result.format == "gguf":
            out.note(f"next: llama-cli -m BASE.gguf --lora {result.output}, with a GGUF file of that base")
