"""Methods made of harvested adapters: the oracle, the average, the nearest and the weighted nearest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from icmlora_cli.methods.method import Served, TaskContext, UnavailableError, Uses
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, average, weighted_sum
from icmlora_cli.weights.registered import read_last


@dataclass(frozen=True)
class HarvestedMethod:
    """The adapter that was trained on the task itself: the oracle.

    Args:
        store: the harvested adapters.
        base: what they were trained on.
    """

    store: AdapterStore
    base: Base
    name: str = "harvested"
    title: str = "harvested adapter (oracle)"
    uses: Uses = "training data"

    def identity(self, context: TaskContext) -> object:
        """Return the hash of the adapter's weights."""
        record = self.store.newest(self.base, context.task)
        return None if record is None else record.checkpoints[-1].sha256

    def serve(self, context: TaskContext) -> Served:
        """Return the last checkpoint of the task's newest adapter.

        Raises:
            UnavailableError: if the task was not harvested.
        """
        record = self.store.newest(self.base, context.task)
        if record is None:
            raise UnavailableError("not harvested")
        return Served(read_last(self.store, record))


@dataclass(frozen=True)
class Library:
    """The harvested adapters that methods may draw on: those of training tasks, never of an unseen one.

    Args:
        store: where they are.
        records: the newest of each task, in the order of their names.
    """

    store: AdapterStore
    records: tuple[AdapterRecord, ...]
    _adapters: dict[str, Adapter] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(record.task for record in self.records)

    def identity(self) -> list[list[str]]:
        """Return the names and the hashes of the weights."""
        return [[record.task, record.checkpoints[-1].sha256] for record in self.records]

    def adapter(self, task: str) -> Adapter:
        """Return a task's adapter, read and checked once."""
        if task not in self._adapters:
            record = next(record for record in self.records if record.task == task)
            self._adapters[task] = read_last(self.store, record)
        return self._adapters[task]

    def adapters(self) -> tuple[Adapter, ...]:
        """Return all adapters, in the order of ``tasks``.

        Raises:
            UnavailableError: if there are none.
        """
        if not self.records:
            raise UnavailableError("no training task has a harvested adapter")
        return tuple(self.adapter(task) for task in self.tasks)


@dataclass(frozen=True)
class AverageMethod:
    """The mean delta-W of the training tasks' adapters ("model soup", Wortsman et al., ICML 2022)."""

    library: Library
    name: str = "average"
    title: str = "average of the harvested adapters"
    uses: Uses = "nothing"
    _made: list[Adapter] = field(default_factory=list, compare=False, repr=False)

    def identity(self, context: TaskContext) -> object:
        """Return what is averaged."""
        return self.library.identity()

    def serve(self, context: TaskContext) -> Served:
        """Return the average, the same for every task.

        Raises:
            UnavailableError: if nothing was harvested.
        """
        if not self._made:
            self._made.append(average(self.library.adapters()))
        return Served(self._made[0], about={"adapters": len(self.library.records)})


VectorOf = Callable[[TaskContext], torch.Tensor]
"""Reads the task vector, fp32 [hidden], by which tasks are compared."""


@dataclass(frozen=True)
class Neighbours:
    """The training tasks by the likeness of their task vectors: cosine after standardisation over those tasks.

    Args:
        tasks: n names.
        vectors: their task vectors, fp32 [n, hidden].
    """

    tasks: tuple[str, ...]
    vectors: torch.Tensor

    def nearest(self, vector: torch.Tensor, count: int, *, without: str | None = None) -> list[tuple[str, float]]:
        """Return the nearest tasks and their cosines, the nearest first.

        Args:
            vector: fp32 [hidden].
            count: how many, at most.
            without: a task that does not count.
        """
        mean = self.vectors.mean(0) if len(self.tasks) > 1 else torch.zeros_like(vector)
        std = self.vectors.std(0).clamp(min=1e-6) if len(self.tasks) > 1 else torch.ones_like(vector)
        known = torch.nn.functional.normalize((self.vectors - mean) / std, dim=1)
        cosines = known @ torch.nn.functional.normalize((vector - mean) / std, dim=0)
        order = torch.argsort(cosines, descending=True, stable=True).tolist()
        found = [(self.tasks[index], float(cosines[index])) for index in order if self.tasks[index] != without]
        return found[:count]


@dataclass(frozen=True)
class NearestMethod:
    """The adapters of the training tasks whose task vectors are nearest, weighted by a softmax of the cosines.

    With ``count`` 1 it is plain retrieval. A seen task's nearest is itself, when vectors are read from the same text.

    Args:
        library: the harvested adapters.
        neighbours: reads the training tasks' vectors, once.
        vector_of: reads the vector of the task that is served.
        count: K.
        name: of the method.
        title: of the method.
        reading: all that decides the neighbours' vectors, for the score's identity.
        uses: what ``vector_of`` looks at.
        temperature: of the softmax.
        others: whether the served task's own adapter is left out.
    """

    library: Library
    neighbours: Callable[[], Neighbours]
    vector_of: VectorOf
    count: int
    name: str
    title: str
    reading: object
    uses: Uses = "text"
    temperature: float = 0.1
    others: bool = False

    def identity(self, context: TaskContext) -> object:
        """Return the adapters to choose from, how they are read, the text, and K."""
        chosen = [self.library.identity(), self.reading, context.text, self.count, self.temperature]
        return [*chosen, context.task.name] if self.others else chosen

    def serve(self, context: TaskContext) -> Served:
        """Return the nearest adapter, or the weighted sum of the nearest.

        Raises:
            UnavailableError: if nothing was harvested, or nothing else where only others count, or the task has no
                vector.
        """
        if not self.library.records:
            raise UnavailableError("no training task has a harvested adapter")
        without = context.task.name if self.others else None
        found = self.neighbours().nearest(self.vector_of(context), self.count, without=without)
        if not found:
            raise UnavailableError("no other training task has a harvested adapter")
        weights = softmax([cosine / self.temperature for _, cosine in found])
        adapter = weighted_sum([self.library.adapter(task) for task, _ in found], weights)
        about = [
            {"task": task, "cosine": round(cosine, 4), "weight": round(weight, 4)}
            for (task, cosine), weight in zip(found, weights, strict=True)
        ]
        return Served(adapter, about={"nearest": about})


def softmax(values: Sequence[float]) -> list[float]:
    """Return weights that sum to 1."""
    weights: list[float] = torch.tensor(values, dtype=torch.float64).softmax(0).tolist()
    return weights
