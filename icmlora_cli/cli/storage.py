"""``icmlora storage``: what everything takes, and when a generator pays."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from icmlora_cli.cli.options import Json, Quiet
from icmlora_cli.cli.out import session

if TYPE_CHECKING:
    from icmlora_cli.workflows.storage import GeneratorStorage, StorageReport


def storage(as_json: Json = False, quiet: Quiet = False) -> None:
    """Show the bytes of base, tasks, adapters and generators, and how many tasks it takes to break even."""
    with session("storage", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.registry.home import Home
        from icmlora_cli.workflows.storage import run

        report = run(Home.from_environment())
        out.result(storage_dict(report))
        rows = [("base", name, "", _mb(size)) for name, size in report.bases]
        rows += [("tasks", f"{len(report.tasks)} tasks", "", _mb(sum(size for _, size in report.tasks)))]
        rows += [("adapter", i.task, f"{i.checkpoints} checkpoints", _mb(i.bytes)) for i in report.adapters]
        rows += [("generator", i.name, f"{i.tasks} tasks", _mb(i.bytes)) for i in report.generators]
        out.table(("what", "name", "holds", "MB"), rows)
        for generator in report.generators:
            out.line(storage_line(generator))


def storage_dict(report: "StorageReport") -> dict[str, object]:
    """Return the JSON form of a storage report."""
    return {
        "bases": dict(report.bases),
        "tasks": dict(report.tasks),
        "adapters": [asdict(item) for item in report.adapters],
        "adapter_bytes": report.adapter_bytes,
        "generators": [asdict(item) for item in report.generators],
    }


def storage_line(item: "GeneratorStorage") -> str:
    """Return one generator's storage in a sentence."""
    head = f"generator {item.name}: {_mb(item.bytes)} MB for {item.tasks} tasks"
    if item.ratio_all is None or item.ratio_one is None:
        return f"{head}; none of their adapters is in this registry"
    return (
        f"{head}; {item.ratio_all:.2f} x all their kept checkpoints, {item.ratio_one:.2f} x one adapter a task; "
        f"smaller than one adapter a task from {item.break_even} tasks on, at this size"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f}"
