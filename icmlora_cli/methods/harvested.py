"""Methods that use harvested adapters: the oracle, the average, the nearest, and a weighted sum of the nearest."""

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
    """The oracle: the adapter that was harvested on the very task that is served.

    Args:
        store: the store of harvested adapters.
        base: the base model that they were trained on.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        uses: what the method knows of the task.
    """

    store: AdapterStore
    base: Base
    name: str = "harvested"
    title: str = "harvested adapter (oracle)"
    uses: Uses = "training data"

    def identity(self, context: TaskContext) -> object:
        """Return the hash of the adapter's weights; None if the task was not harvested."""
        record = self.store.newest(self.base, context.task)
        return None if record is None else record.checkpoints[-1].sha256

    def serve(self, context: TaskContext) -> Served:
        """Return the last checkpoint of the task's newest adapter.

        Raises:
            UnavailableError: If the task was not harvested.
        """
        record = self.store.newest(self.base, context.task)
        if record is None:
            raise UnavailableError("not harvested")
        return Served(read_last(self.store, record))


@dataclass(frozen=True)
class Library:
    """The harvested adapters that methods may draw on: those of training tasks, never of an unseen one.

    Args:
        store: the store that the adapters are in.
        records: the newest record of each task, in the order of the tasks' names.
    """

    store: AdapterStore
    records: tuple[AdapterRecord, ...]
    _adapters: dict[str, Adapter] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that have an adapter."""
        return tuple(record.task for record in self.records)

    def identity(self) -> list[list[str]]:
        """Return the name and the hash of the weights of each adapter."""
        return [[record.task, record.checkpoints[-1].sha256] for record in self.records]

    def adapter(self, task: str) -> Adapter:
        """Return a task's adapter, which is read from disk and checked only the first time."""
        if task not in self._adapters:
            record = next(record for record in self.records if record.task == task)
            self._adapters[task] = read_last(self.store, record)
        return self._adapters[task]

    def adapters(self) -> tuple[Adapter, ...]:
        """Return all adapters, in the order of ``tasks``.

        Raises:
            UnavailableError: If there are none.
        """
        if not self.records:
            raise UnavailableError("no training task has a harvested adapter")
        return tuple(self.adapter(task) for task in self.tasks)


@dataclass(frozen=True)
class AverageMethod:
    """The mean delta-W of the training tasks' adapters ("model soup", Wortsman et al., ICML 2022).

    Args:
        library: the harvested adapters that are averaged.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        uses: what the method knows of the task.
    """

    library: Library
    name: str = "average"
    title: str = "average of the harvested adapters"
    uses: Uses = "nothing"
    _average: list[Adapter] = field(default_factory=list, compare=False, repr=False)

    def identity(self, context: TaskContext) -> object:
        """Return the identity of the adapters that are averaged."""
        return self.library.identity()

    def serve(self, context: TaskContext) -> Served:
        """Return the average, which is the same for every task.

        Raises:
            UnavailableError: If no training task has a harvested adapter.
        """
        if not self._average:
            self._average.append(average(self.library.adapters()))
        return Served(self._average[0], about={"adapters": len(self.library.records)})


VectorOf = Callable[[TaskContext], torch.Tensor]
"""Returns the vector of a task, fp32 [hidden], by which it is compared with others."""


@dataclass(frozen=True)
class Neighbours:
    """The training tasks with their task vectors, for finding those that are most like another task.

    Likeness is the cosine of task vectors after standardisation over the training tasks.

    Args:
        tasks: the names of the n training tasks.
        vectors: the task vectors of these tasks, fp32 [n, hidden].
    """

    tasks: tuple[str, ...]
    vectors: torch.Tensor

    def nearest(self, vector: torch.Tensor, count: int, *, without: str | None = None) -> list[tuple[str, float]]:
        """Return the nearest tasks and their cosines, the nearest first.

        Args:
            vector: the task vector to compare with, fp32 [hidden].
            count: how many tasks are returned at most.
            without: the name of a task to leave out; None leaves out none.
        """
        mean = self.vectors.mean(0) if len(self.tasks) > 1 else torch.zeros_like(vector)
        std = self.vectors.std(0).clamp(min=1e-6) if len(self.tasks) > 1 else torch.ones_like(vector)
        known = torch.nn.functional.normalize((self.vectors - mean) / std, dim=1)
        cosines = known @ torch.nn.functional.normalize((vector - mean) / std, dim=0)
        order = torch.argsort(cosines, descending=True, stable=True).tolist()
        nearest = [(self.tasks[index], float(cosines[index])) for index in order if self.tasks[index] != without]
        return nearest[:count]


@dataclass(frozen=True)
class NearestMethod:
    """The adapters of the K training tasks with the nearest task vectors, weighted by a softmax of the cosines.

    With K = 1 this is plain retrieval. The nearest task of a seen one is itself if its vector is read from the same
    text.

    Args:
        library: the harvested adapters.
        neighbours: the function that returns the training tasks with their vectors.
        vector_of: the function that returns the vector of the task that is served.
        count: K, how many adapters are summed at most.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        reading: all that decides the training tasks' vectors, in JSON's types, for the score's identity.
        uses: what ``vector_of`` reads of the task.
        temperature: the number by which the cosines are divided before the softmax.
        others: whether the adapter of the task that is served is left out.
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
        """Return all that decides the choice: the adapters, how vectors are read, the text, K and the temperature."""
        parts = [self.library.identity(), self.reading, context.text, self.count, self.temperature]
        return [*parts, context.task.name] if self.others else parts

    def serve(self, context: TaskContext) -> Served:
        """Return the nearest adapter, or the weighted sum of the nearest.

        Raises:
            UnavailableError: If no training task has a harvested adapter, if the only one is the task's own and that is
                left out, or if the task has no vector.
        """
        if not self.library.records:
            raise UnavailableError("no training task has a harvested adapter")
        without = context.task.name if self.others else None
        nearest = self.neighbours().nearest(self.vector_of(context), self.count, without=without)
        if not nearest:
            raise UnavailableError("no other training task has a harvested adapter")
        weights = softmax([cosine / self.temperature for _, cosine in nearest])
        adapter = weighted_sum([self.library.adapter(task) for task, _ in nearest], weights)
        about = [
            {"task": task, "cosine": round(cosine, 4), "weight": round(weight, 4)}
            for (task, cosine), weight in zip(nearest, weights, strict=True)
        ]
        return Served(adapter, about={"nearest": about})


def softmax(values: Sequence[float]) -> list[float]:
    """Return the softmax of the values: positive weights that sum to 1."""
    weights: list[float] = torch.tensor(values, dtype=torch.float64).softmax(0).tolist()
    return weights
