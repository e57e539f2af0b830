"""What a registry and a generator have: the tasks that were learned, the tasks and adapters that are registered."""

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import Task
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.report.shown import visible
from icmlora_cli.serving.play.made import DownloadFile, FileKind, file_stem, zipped
from icmlora_cli.tasks.examples import Example
from icmlora_cli.workflows.adapters.export import run as export
from icmlora_cli.workflows.gen.explain import learned_texts

DRAWN = 40  # examples of a built-in task among which one is shown


@dataclass(frozen=True)
class Catalogue:
    """The tasks and adapters that the page lists.

    Args:
        home: The registry.
        base: The base, whose adapters are listed.
        generator: The generator, whose training tasks are listed.
    """

    home: Home
    base: Base
    generator: Generator

    def listing(self) -> dict[str, object]:
        """Return all of it in JSON's types; damaged tasks have a line that says so."""
        adapters = self._adapters()
        tasks = [self._task(name, adapters.pop(name, ())) for name in TaskStore(self.home).names()]
        tasks += [_row(name, records=records) for name, records in sorted(adapters.items())]
        learned = [{"name": name, "text": visible(text)} for name, text in learned_texts(self.generator).items()]
        return {"learned": learned, "tasks": tasks}

    def _adapters(self) -> dict[str, tuple[AdapterRecord, ...]]:
        """Return this base's adapters by their tasks, each task's in the order of their times."""
        found: dict[str, tuple[AdapterRecord, ...]] = {}
        for record in AdapterStore(self.home).readable():
            if record.weight_hash == self.base.weight_hash:
                found[record.task] = (*found.get(record.task, ()), record)
        return found

    def _task(self, name: str, records: tuple[AdapterRecord, ...]) -> dict[str, object]:
        try:
            return _row(name, Task.read(self.home.tasks / name), records)
        except (CorruptFileError, FileNotFoundError):
            return _row(name, records=(), text="this task is damaged: icmlora registry verify")

    def sample(self, name: str) -> Example:
        """Return an example of a task: of a registered one, of its test part if it has any; else of a built-in one.

        Raises:
            CorruptFileError: If the registered task is damaged.
            NotFoundError: If there is no such task, or it has no examples.
        """
        from icmlora_cli.tasks.builtin import builtin_names, builtin_task, dense_tasks

        store = TaskStore(self.home)
        if name in store.names():
            task = store.get(name)
            examples = task.examples("test") or task.examples("train") if task.has_examples else ()
        elif name in builtin_names():
            examples = builtin_task(name).examples(DRAWN)
        else:
            examples = next((item.examples(DRAWN) for item in dense_tasks() if item.name == name), ())
        if not examples:
            raise NotFoundError(f"there is no example of {name[:120]!r}")
        return random.Random(name).choice(examples)

    def file(self, name: str, kind: FileKind) -> DownloadFile:
        """Return a registered task's newest adapter as a zip of its PEFT folder, or as a LoRA in GGUF.

        Raises:
            CorruptFileError: If the adapter is damaged.
            NotFoundError: If there is no such adapter.
            UnsupportedAdapterError: If GGUF cannot express it.
        """
        records = self._adapters().get(name)
        if not records:
            raise NotFoundError(f"there is no adapter of {name[:120]!r} for this base")
        with tempfile.TemporaryDirectory(prefix="icmlora-play-") as root:
            out = Path(root) / ("adapter.gguf" if kind == "gguf" else "adapter")
            export(records[-1].key, out, self.home, form="gguf" if kind == "gguf" else "peft")
            data = out.read_bytes() if kind == "gguf" else zipped(out)
        return DownloadFile(f"{file_stem(name)}.{kind}", data)


def _row(
    name: str, task: Task | None = None, records: tuple[AdapterRecord, ...] = (), text: str = ""
) -> dict[str, object]:
    newest = records[-1] if records else None
    return {
        "name": name,
        "text": visible(text if task is None else task.descriptions[0]),
        "examples": 0 if task is None else sum(task.counts.values()),
        "kept_out": task is not None and task.split == "unseen",
        "usable": newest is not None and task is not None and newest.is_current(task),
        "adapter": None
        if newest is None
        else {
            "bytes": newest.checkpoints[-1].bytes,
            "created": newest.created,
            "origin": "imported" if newest.imported else "harvested",
            "count": len(records),
        },
    }
