"""``icmlora gen``: generate an adapter from a task text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from icmlora_cli.cli.options import (
    DEFAULT_BASE,
    EXAMPLES,
    WRITTEN,
    Device,
    Force,
    Json,
    Offline,
    OtherBase,
    OutFolder,
    Quiet,
    Template,
)
from icmlora_cli.cli.out import Out, session
from icmlora_cli.errors import GateRefusedError

if TYPE_CHECKING:
    from icmlora_cli.evidence.search import Evidence
    from icmlora_cli.registry.generators import GeneratorStore
    from icmlora_cli.workflows.gen.batch import BatchEntry, BatchResult
    from icmlora_cli.workflows.gen.explain import Explanation
    from icmlora_cli.workflows.gen.generate import GenResult
    from icmlora_cli.workflows.gen.options import GenOptions
    from icmlora_cli.workflows.gen.select import Selection


def _seed(value: int | None) -> int | None:
    """Check that a seed is one that torch takes; ``max=`` in the option would print the long bound in ``--help``."""
    if value is not None and value >= 2**63:
        raise typer.BadParameter(f"{value} is 2**63 or more")
    return value


def gen(
    out_folder: OutFolder,
    task_text: Annotated[
        str | None, typer.Argument(help="What the adapter should do, in a sentence; not with --batch.")
    ] = None,
    generator: Annotated[str, typer.Option("--generator", "-g", help="A generator's name or folder.")] = "default",
    base: OtherBase = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, callback=_seed, help="Sample z with this seed; without it, z is the prior's mean."
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option("--batch", help="Task texts, one a line or as a YAML or JSON list; each gets a folder below -o."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Say what the adapter is near to, and how far the text is from what was learned."
        ),
    ] = False,
    examples: Annotated[
        Path | None,
        typer.Option(
            "--examples",
            help="Examples of the task: what predicts them best is kept. JSON, JSONL, CSV, TSV, Parquet.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            "--budget",
            help="Seconds to spend on the examples; with 0 the generator just reads them.",
            rich_help_panel=EXAMPLES,
        ),
    ] = 60.0,
    select: Annotated[
        Path | None,
        typer.Option(
            "--select",
            help="Examples that judge what is tried, in the same formats; without --examples, the samples.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=1,
            help="How many samples are tried: 16 by default with --select alone, 8 with --examples.",
            rich_help_panel=EXAMPLES,
        ),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Write nothing and exit with 3 unless it beats base and average on these examples.",
            rich_help_panel=EXAMPLES,
        ),
    ] = False,
    template: Template = "qa",
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Write the whole merged model instead of an adapter.", rich_help_panel=WRITTEN),
    ] = False,
    output_format: Annotated[
        Literal["peft", "gguf"],
        typer.Option("--format", help="For PEFT and transformers, or for llama.cpp.", rich_help_panel=WRITTEN),
    ] = "peft",
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16", "q8_0"] | None,
        typer.Option(
            "--dtype",
            help="Numbers of the written tensors; q8_0 only with --merge --format gguf.",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option("--rank", min=1, help="Rank to write; the generator's own by default.", rich_help_panel=WRITTEN),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", help="Multiply delta-W by this.", rich_help_panel=WRITTEN)] = 1.0,
    force: Force = False,
    device: Device = None,
    offline: Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate the LoRA adapter of a task from its description.

    It writes a PEFT folder that PeftModel.from_pretrained loads, or with --merge a model that
    AutoModelForCausalLM.from_pretrained loads; with --format gguf, adapter.gguf or model.gguf, which llama.cpp loads.
    The same text, generator, seed and options give the same bytes. docs/generating.md explains all options.
    """
    with session("gen" if batch is None else "gen batch", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.errors import UsageError
        from icmlora_cli.registry.generators import GeneratorStore

        if (task_text is None) == (batch is None):
            raise UsageError(
                "there is no task text" if task_text is None else "--batch brings its own task texts",
                hint='icmlora gen "Give the antonym." -o out/   or: icmlora gen --batch texts.txt -o out/',
            )
        home = Home.from_environment()
        folder = _generator(out, GeneratorStore(home), generator)
        from icmlora_cli.workflows.gen.options import GenOptions, GenRequest

        options = GenOptions(
            examples, budget, select, samples, template, gate, rank, dtype, scale, explain, output_format
        )
        request = GenRequest(folder, merge, seed, options)
        request.check()
        from icmlora_cli.workflows.base.pull import resolve as resolve_base
        from icmlora_cli.workflows.gen import batch as gen_batch
        from icmlora_cli.workflows.gen.generate import base_name, run

        with out.progress() as on_progress:
            name = base or base_name(folder) or DEFAULT_BASE
            base_model = resolve_base(name, home, offline=offline, on_progress=on_progress)
            if batch is not None:
                done = gen_batch.run(
                    batch, out_folder, request, base_model, home, force=force, device=device, on_progress=on_progress
                )
            elif task_text is not None:
                result = run(
                    task_text, out_folder, request, base_model, home, force=force, device=device,
                    on_progress=on_progress,
                )  # fmt: skip
        for note in done.notes if batch is not None else result.notes:
            out.note(f"note: {note}")
        if batch is not None:
            _print_batch(out, done, options)
        else:
            out.result(_dict(result))
            _print(out, result, options)


def _generator(out: Out, store: "GeneratorStore", name: str) -> Path:
    """Return a generator's folder, with a note if it is the one that comes with icmlora and no option named it."""
    from icmlora_cli.registry.generators import BUNDLED, DEFAULT

    folder = store.find(name)
    if name == DEFAULT and folder.parent.name == BUNDLED:
        trained = ", ".join(f"-g {name}" for name in store.names())
        why = f"no generator is named {DEFAULT!r} here (but {trained})" if trained else "no generator is trained here"
        out.note(f"note: {why}, so the one that comes with icmlora is taken: docs/generating.md")
    return folder


def _dict(result: "GenResult") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(result) | {"folder": str(result.folder)}


def _print(out: Out, result: "GenResult", options: "GenOptions") -> None:
    if out.quiet:
        out.line(str(result.folder))
        return
    if result.evidence is not None:
        _print_evidence(out, result.evidence)
    if result.selection is not None:
        _print_selection(out, result.selection)
        _print_compared(out, result.selection, options)
    if result.explanation is not None:
        _print_explanation(out, result.explanation)
    _warn(out, result)
    out.line(f"{_what(result)}, {result.bytes / 1e6:.1f} MB, in {result.folder}")
    if options.rank is not None or (options.dtype is not None and not result.merged):
        out.line(f"relative error of delta-W against the generator's own adapter: {result.error:.4f}")


def _what(result: "GenResult") -> str:
    return "merged model" if result.merged else f"adapter of rank {result.rank}"


def _warn(out: Out, result: "GenResult", name: str = "") -> None:
    """Print warnings on stderr; ``name`` is the text's name within a batch, or empty."""
    prefix = f"{name}: " if name else ""
    selection, explanation = result.selection, result.explanation
    if not name:
        out.forbidden(result.no_derivatives)
    if selection is not None and selection.shown:
        out.note(
            f"note: {prefix}{selection.shown} of the {selection.examples} examples that it was scored on were shown to "
            "the generator too"
        )
    if explanation is not None and explanation.range.outside:
        out.note(
            f"warning: {prefix}the text lies outside of what the generator saw; expect the adapter of some other task"
        )


def _print_evidence(out: Out, evidence: "Evidence") -> None:
    rows = [
        (
            item.kind,
            "-" if item.held_out is None else f"{item.held_out:.4f}",
            f"{item.nll:.4f}",
            item.detail,
            "kept" if index == evidence.kept else "",
        )
        for index, item in enumerate(evidence.tried)
    ]
    how = f"judged by {evidence.judges} others" if evidence.judges else f"{evidence.folds} folds"
    title = f"on {evidence.examples} examples" + (f", {how}" if evidence.judges or evidence.folds else "")
    out.table(("tried", "held-out NLL", "NLL", "which", ""), rows, title=title)
    if evidence.out_of_time:
        out.note("note: the budget ended the training of the adapter; --budget with more seconds goes on longer")
    if evidence.tried[evidence.kept].kind == "base":
        out.note("warning: nothing predicts the examples better than the base alone; the adapter changes nothing")


def _print_selection(out: Out, selection: "Selection") -> None:
    def figures(nll: float | None, exact: float | None) -> tuple[str, str]:
        return "-" if nll is None else f"{nll:.4f}", "-" if exact is None else f"{exact:.2f}"

    rows = [
        (
            str(index),
            "mean of the prior" if item.seed is None else f"seed {item.seed}",
            *figures(item.nll, item.exact_match),
            "kept" if index == selection.kept else "",
        )
        for index, item in enumerate(selection.candidates)
    ]
    rows.append(("-", "base alone", *figures(selection.base.nll, selection.base.exact_match), ""))
    if selection.average is not None:
        average = selection.average
        rows.append(("-", f"average of {selection.averaged} adapters", *figures(average.nll, average.exact_match), ""))
    title = f"on {selection.examples} examples of {selection.file}"
    out.table(("sample", "z", "NLL", "exact match", ""), rows, title=title)


def _print_compared(out: Out, selection: "Selection", options: "GenOptions") -> None:
    from icmlora_cli.workflows.gen.select import compared

    remark = compared(selection) if options.gate else None
    if remark is not None:
        out.note(f"note: {remark}")


def _print_explanation(out: Out, explanation: "Explanation") -> None:
    rows = [(item.task, f"{item.cosine:.3f}", item.description) for item in explanation.nearest]
    out.table(("nearest training task", "cosine", "description"), rows)
    nearest, text_range = explanation.adapter, explanation.range
    if nearest is None:
        out.line(f"nearest harvested adapter: none of the {explanation.learned} is here to compare with")
    else:
        out.line(
            f"nearest harvested adapter: {nearest.task}, distance {nearest.distance:.3f}, cosine {nearest.cosine:.3f} "
            f"(of {explanation.adapters})"
        )
    if text_range.ratio is not None and text_range.percentile is not None:
        out.line(
            f"distance to the nearest training text: {text_range.ratio:.2f} times the usual, farther than "
            f"{text_range.percentile:.0%} of the {text_range.tasks} training tasks are from theirs"
        )
    out.line(f"numbers of the reading beyond 5 standard deviations: {text_range.clamped:.1%}")


def _print_batch(out: Out, done: "BatchResult", options: "GenOptions") -> None:
    out.result(
        {
            "folder": str(done.folder),
            "seconds": done.seconds,
            "entries": [_entry_dict(entry) for entry in done.entries],
            "notes": list(done.notes),
        }
    )
    for entry in done.entries:
        out.line(f"{entry.state}\t{entry.folder}" if out.quiet else _entry_line(entry))
        if entry.result is not None:
            _warn(out, entry.result, entry.name)
    # one generator made all entries, so that they have the same licences
    out.forbidden(next((entry.result.no_derivatives for entry in done.entries if entry.result), ()))
    scored = [entry.result.selection for entry in done.entries if entry.result and entry.result.selection]
    if scored:
        _print_compared(out, scored[0], options)  # all entries were scored on the same examples
    states = [entry.state for entry in done.entries]
    counted = [(state, states.count(state)) for state in ("written", "unchanged", "refused")]
    out.note(", ".join(f"{count} {state}" for state, count in counted if count) + f", in {done.folder}")
    if done.refused:
        raise typer.Exit(GateRefusedError.exit_code)


def _entry_dict(entry: "BatchEntry") -> dict[str, object]:
    return {
        "name": entry.name,
        "task_text": entry.task_text,
        "folder": str(entry.folder),
        "state": entry.state,
        "result": None if entry.result is None else _dict(entry.result),
        "reason": entry.reason,
    }


def _entry_line(entry: "BatchEntry") -> str:
    """Return a line about one text: its state, its name, and what was written or why nothing was."""
    line = f"{entry.state}: {entry.name}"
    if entry.reason is not None:
        return f"{line}: {entry.reason}"
    if entry.result is None:
        return line
    selection, explanation, facts = entry.result.selection, entry.result.explanation, [_what(entry.result)]
    if selection is not None:
        nll = selection.candidates[selection.kept].nll
        facts.append(f"NLL {nll:.4f} (base {selection.base.nll:.4f})")
    if explanation is not None and explanation.nearest:
        facts.append(f"nearest task {explanation.nearest[0].task}")
    return f"{line}: {', '.join(facts)}"
