"""The ladder: each rung gives, for a task, the adapter to run it with, or says why it has none."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from icmlora_cli.errors import NotFound
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.weights.adapter import Adapter, average, read_adapter


class Unavailable(Exception):
    """A rung has nothing for this task; the reason is shown in its cell."""


class Rung(Protocol):
    """One way to serve a task."""

    @property
    def name(self) -> str:
        """The rung's name in tables and JSON."""

    @property
    def described(self) -> bool:
        """Whether the task's description stands in the prompt."""

    def adapter(self, task: Task) -> Adapter | None:
        """Return the adapter to merge, or None for the bare base.

        Raises:
            Unavailable: if the rung has nothing for the task.
        """


@dataclass(frozen=True)
class BaseRung:
    """The base model as it is, with or without the description in its prompt."""

    described: bool = False

    @property
    def name(self) -> str:
        """``base`` or ``described``."""
        return "described" if self.described else "base"

    def adapter(self, task: Task) -> Adapter | None:
        """Return None: nothing is merged."""
        return None


@dataclass(frozen=True)
class AverageRung:
    """The mean delta-W of the newest adapters of a set of tasks ("model soup").

    Args:
        store: the harvested adapters.
        records: what is averaged; it never includes an unseen task's.
    """

    store: AdapterStore
    records: tuple[AdapterRecord, ...]
    name: str = "average"
    described: bool = False

    def adapter(self, task: Task) -> Adapter | None:
        """Return the average, the same for every task.

        Raises:
            Unavailable: if nothing was harvested.
        """
        if not self.records:
            raise Unavailable("no harvested adapters to average")
        return _average(tuple(self.store.checked(record, record.checkpoints[-1]) for record in self.records))


@lru_cache(maxsize=1)
def _average(folders: tuple[Path, ...]) -> Adapter:
    return average([read_adapter(folder) for folder in folders])


@dataclass(frozen=True)
class GeneratedRung:
    """The adapter that the generator makes from the task's first description.

    Args:
        make: task text to adapter.
    """

    make: Callable[[str], Adapter]
    name: str = "generated"
    described: bool = False

    def adapter(self, task: Task) -> Adapter | None:
        """Return the generated adapter."""
        return self.make(task.descriptions[0])


@dataclass(frozen=True)
class HarvestedRung:
    """The adapter that was trained on the task itself: the oracle.

    Args:
        store: the harvested adapters.
        base: what they were trained on.
    """

    store: AdapterStore
    base: Base
    name: str = "harvested"
    described: bool = False

    def adapter(self, task: Task) -> Adapter | None:
        """Return the last checkpoint of the task's newest adapter.

        Raises:
            Unavailable: if the task was not harvested.
        """
        try:
            record = self.store.latest(self.base, task)
        except NotFound as error:
            raise Unavailable("not harvested") from error
        return read_adapter(self.store.checked(record, record.checkpoints[-1]))
