"""What a server's client may name as a model: a registered task, or a task in words. Names never become paths.

Both servers read names here: ``icmlora serve`` and the resolver for vLLM.
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
    """Where the adapter of a name comes from: a task's harvested one, or one to be generated.

    Args:
        name: The name, as it is listed.
        key: The hash of all that decides the adapter's numbers.
        text: The task in words; None for a registered task.
        record: The harvested adapter; None for a text.
    """

    name: str
    key: str
    text: str | None = None
    record: AdapterRecord | None = None


@dataclass(frozen=True)
class AdapterSources:
    """Finds and gets the adapters of names, for one base.

    Args:
        base: The base model.
        home: The registry.
        generator: What makes adapters of texts; with None, texts are not served.
    """

    base: Base
    home: Home
    generator: Generator | None

    def find(self, name: str) -> AdapterSource | None:
        """Return where the adapter of a name comes from, or None where it is neither a text nor a harvested task.

        Raises:
            UsageError: if the text is empty or too long.
            CorruptFileError: if the task or a manifest is damaged.
        """
        if name.startswith(PREFIX):
            return None if self.generator is None else self._of_text(checked_text(name.removeprefix(PREFIX)))
        return self._of_task(name) if may_be_ours(name) else None

    def _of_text(self, text: str) -> AdapterSource:
        assert self.generator is not None
        held = self.generator.manifest
        made_by = [held.key, held.sha256, self.base.weight_hash]
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
        """Return the names of the tasks that have an adapter for this base, sorted; damaged ones are left out."""
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
            source: What ``find`` returned.
            make: Returns the adapter of a text.

        Raises:
            CorruptFileError: if a harvested adapter is not what its manifest says.
        """
        if source.record is None:
            assert source.text is not None
            return make(source.text)
        return read_adapter(AdapterStore(self.home).checked(source.record, source.record.checkpoints[-1]))
