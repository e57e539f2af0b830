"""``icmlora storage``: show what everything takes on disk, what is not needed, and when a generator pays."""

from typing import TYPE_CHECKING

from icmlora_cli.cli.options import Json, Quiet
from icmlora_cli.cli.out import Out, session

if TYPE_CHECKING:
    from icmlora_cli.workflows.registry.storage import GeneratorStorage, StorageReport

_Row = tuple[tuple[str, ...], int]  # the cells of a row, and the bytes of which it shows the share


def storage(as_json: Json = False, quiet: Quiet = False) -> None:
    """Show what everything takes on disk, and when a generator pays.

    It shows the bytes of bases, tasks, adapters and generators, how many tasks it takes to break even, rank and dtype
    of each task's last adapter, what equal checkpoints take more than once, and what icmlora registry gc would free.
    """
    with session("storage", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.disk.home import Home
        from icmlora_cli.workflows.registry.storage import run

        report = run(Home.from_environment())
        out.result(storage_dict(report))
        _print_things(out, report)
        if not quiet:
            _print_formats(out, report)
            _print_waste(out, report)
        for generator in report.generators:
            out.line(storage_line(generator))


def storage_dict(report: "StorageReport") -> dict[str, object]:
    """Return the JSON form of a storage report."""
    return {
        "bases": dict(report.bases),
        "tasks": dict(report.tasks),
        "adapters": [vars(item) for item in report.adapters],
        "adapter_bytes": report.adapter_bytes,
        "formats": [vars(item) for item in report.formats],
        "generators": [vars(item) for item in report.generators],
        "bytes": report.bytes,
        "duplicates": vars(report.duplicates),
        "gc": {"bytes": report.gc_bytes, "by_kind": dict(report.gc)},
    }


def storage_line(item: "GeneratorStorage") -> str:
    """Return a sentence about the storage of one generator."""
    from icmlora_cli.report.figures import plural

    head = f"generator {item.name}: {_mb(item.bytes)} MB for {item.tasks} tasks"
    if item.ratio_all is None or item.ratio_one is None or item.break_even is None:
        return f"{head}; none of their adapters is in this registry"
    return (
        f"{head}: {100 * item.ratio_all:.1f} per cent of all their kept checkpoints, "
        f"{100 * item.ratio_one:.1f} of one adapter a task; "
        f"smaller than one adapter a task from {plural(item.break_even, 'task')} on, at this size"
    )


def _print_things(out: Out, report: "StorageReport") -> None:
    things: list[_Row] = [(("base", name, "", "", ""), size) for name, size in report.bases]
    things += [(("tasks", f"{len(report.tasks)} tasks", "", "", ""), sum(size for _, size in report.tasks))]
    things += [
        (("adapter", i.task, f"{i.checkpoints} checkpoints", i.rank or "-", i.dtype or "-"), i.bytes)
        for i in report.adapters
    ]
    things += [(("generator", i.name, f"{i.tasks} tasks", "", ""), i.bytes) for i in report.generators]
    _print_shares(out, ("what", "name", "holds", "rank", "dtype"), things, report.bytes)


def _print_formats(out: Out, report: "StorageReport") -> None:
    formats: list[_Row] = [
        ((i.rank or "-", i.dtype or "-", str(i.tasks), str(i.checkpoints)), i.bytes) for i in report.formats
    ]
    if formats:
        title = "adapters by rank and dtype of the last checkpoint"
        _print_shares(out, ("rank", "dtype", "tasks", "checkpoints"), formats, report.adapter_bytes, title)


def _print_shares(out: Out, headers: tuple[str, ...], things: list[_Row], whole: int, title: str | None = None) -> None:
    shares = [size / whole if whole else 0.0 for _, size in things]
    rows = [(*row, _mb(size), f"{share:.1%}") for (row, size), share in zip(things, shares, strict=True)]
    out.table((*headers, "MB", "share"), rows, title=title, bars=shares)


def _print_waste(out: Out, report: "StorageReport") -> None:
    duplicates = report.duplicates
    if duplicates.files:
        out.line(
            f"equal checkpoints take {_mb(duplicates.bytes)} MB more than once (further copies: {duplicates.files}); "
            "next: icmlora registry gc --only duplicates"
        )
    if duplicates.linked_files:
        out.line(f"hard links save {_mb(duplicates.linked_bytes)} MB of the above (links: {duplicates.linked_files})")
    kinds = ", ".join(f"{what} {_mb(size)}" for what, size in report.gc.items())
    out.line(f"icmlora registry gc would free {f'{_mb(report.gc_bytes)} MB: {kinds}' if kinds else 'nothing'}")


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f}"
