"""Finds the adapter that a client names: that of a registered task, or one that is generated from a task text.

``icmlora serve`` and the resolver for vLLM both use it. A client's name never becomes a path.
"""

from collections.abc import Callable
from dataclasses import dataclass

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.serving.names import PREFIX, may_be_ours
from icmlora_cli.tasks.task_text import checked_text
from icmlora_cli.weights.adapter import Adapter, read_adapter


@dataclass(frozen=True)
class AdapterSource:
    """Where the adapter of a name comes from: the registry, or the generator.

    Args:
        name: The name by which clients ask for the adapter.
        key: The hash of all that decides the adapter's numbers.
        text: The task text from which the adapter is generated; None if it is in the registry.
        record: The record of the harvested or imported adapter; None if it is generated.
    """

    name: str
    key: str
    text: str | None = None
    record: AdapterRecord | None = None


@dataclass(frozen=True)
class AdapterSources:
    """Finds and reads the adapters of one base that clients may name.

    Args:
        base: The base model.
        home: The registry.
        generator: The generator that makes adapters of task texts; with None, no task texts are served.
    """

    base: Base
    home: Home
    generator: Generator | None

    def find(self, name: str) -> AdapterSource | None:
        """Return where the adapter of a name comes from; None if no adapter has that name.

        Args:
            name: ``icm:TASK TEXT``, or the name of a registered task.

        Raises:
            UsageError: If the task text is empty or too long.
            CorruptFileError: If the registered task or a manifest is damaged.
        """
        if name.startswith(PREFIX):
            return None if self.generator is None else self._of_text(checked_text(name.removeprefix(PREFIX)))
        return self._of_task(name) if may_be_ours(name) else None

    def _of_text(self, text: str) -> AdapterSource:
        assert self.generator is not None
        manifest = self.generator.manifest
        made_by = [manifest.key, manifest.sha256, self.base.weight_hash]
        return AdapterSource(PREFIX + text, files.sha256_json([*made_by, text]), text=text)

    def _of_task(self, name: str) -> AdapterSource | None:
        try:
            task = TaskStore(self.home).get(name)
        except NotFoundError:
            return None
        record = AdapterStore(self.home).newest(self.base, task)
        if record is None:
            return None
        key = files.sha256_json([record.key, record.checkpoints[-1].sha256, self.base.weight_hash])
        return AdapterSource(name, key, record=record)

    def tasks(self) -> tuple[str, ...]:
        """Return the sorted names of the tasks that have an adapter for this base; damaged ones are left out."""
        records = AdapterStore(self.home).readable()
        names = {item.task for item in records if item.weight_hash == self.base.weight_hash}
        return tuple(name for name in sorted(names) if self._whole(name))

    def _whole(self, name: str) -> bool:
        try:
            return self._of_task(name) is not None
        except CorruptFileError:
            return False

    def get(self, source: AdapterSource, make: Callable[[str], Adapter]) -> Adapter:
        """Return the adapter of a source.

        Args:
            source: The source that ``find`` returned.
            make: Generates the adapter of a task text.

        Raises:
            CorruptFileError: If an adapter of the registry is not what its manifest says.
        """
        if source.record is None:
            assert source.text is not None
            return make(source.text)
        return read_adapter(AdapterStore(self.home).checked(source.record, source.record.checkpoints[-1]))
