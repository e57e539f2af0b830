"""What a text and its adapter are near to, and how far the text lies from the texts that the generator learned from.

Training tasks are compared by their conditions, and harvested adapters by delta-W.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.tasks.task_text import MAX_TEXT
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.compare import closeness, inner
from icmlora_cli.workflows.gen.learned import Learned
from icmlora_cli.workflows.progress import OnProgress, Progress

NEAREST = 5  # how many training tasks are named
FAR = {"attention": 1.25, "mean": 3.75}  # by reader, the multiple of the usual distance that is out of range
CLAMPED = 0.05  # the share of a reading's numbers beyond 5 standard deviations that is out of range


@dataclass(frozen=True)
class NearTask:
    """A training task and the cosine of its condition with that of the text."""

    task: str
    description: str
    cosine: float


@dataclass(frozen=True)
class NearAdapter:
    """The nearest harvested adapter: its task, ||generated - harvested|| / ||harvested|| of delta-W, and the cosine."""

    task: str
    distance: float
    cosine: float


@dataclass(frozen=True)
class DistanceRange:
    """How far the reading of a text lies from those of the training tasks' first descriptions.

    Args:
        tasks: The number of training tasks.
        clamped: The share of the numbers of the text's reading that lie beyond 5 standard deviations and are clamped.
        distance: The Euclidean distance from the text's condition to that of the nearest training task; None without
            training tasks.
        usual: The median distance from a training task's condition to that of its nearest other; None below two.
        percentile: The share of the training tasks whose nearest other is nearer than ``distance``, 0 to 1.
        ratio: The distance divided by the usual one.
        limit: The ratio above which a text is out of range; it depends on the generator's reader.
        outside: Whether the ratio is above the limit, or more than 5 % of the numbers are clamped.
    """

    tasks: int
    clamped: float
    distance: float | None
    usual: float | None
    percentile: float | None
    ratio: float | None
    limit: float
    outside: bool


@dataclass(frozen=True)
class Explanation:
    """What a generated adapter is near to.

    Args:
        nearest: The training tasks that are most alike, the nearest first.
        adapter: The nearest harvested adapter; None where the registry has none.
        adapters: How many harvested adapters were compared.
        learned: How many harvested adapters the generator learned from.
        range: How far the text lies from the training texts.
    """

    nearest: tuple[NearTask, ...]
    adapter: NearAdapter | None
    adapters: int
    learned: int
    range: DistanceRange


@dataclass(frozen=True)
class Seen:
    """The training tasks as the generator reads them.

    Args:
        tasks: The n names of the tasks.
        texts: The first description of each task.
        conditions: The condition of each description, fp64 [n, condition].
    """

    tasks: tuple[str, ...]
    texts: tuple[str, ...]
    conditions: torch.Tensor

    def own_distances(self) -> torch.Tensor:
        """Return the distance from each task's condition to the nearest other one, fp64 [n]; empty below two tasks."""
        if len(self.tasks) < 2:
            return torch.zeros(0, dtype=torch.float64)
        apart = torch.cdist(self.conditions, self.conditions, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.fill_diagonal_(torch.inf).amin(1)


def read_seen(generator: Generator, reader: VectorReader, on_progress: OnProgress) -> Seen:
    """Read the first descriptions of the tasks that a generator learned from, registered and built-in."""
    texts = learned_texts(generator)
    readings = _readings(list(texts.values()), reader, on_progress)
    conditions = [generator.condition(item).double() for item in readings]
    return Seen(tuple(texts), tuple(texts.values()), torch.stack(conditions) if conditions else torch.zeros(0, 0))


def learned_texts(generator: Generator) -> dict[str, str]:
    """Return the first descriptions of the tasks that a generator learned from, by the tasks' names."""
    from icmlora_cli.tasks.builtin import dense_tasks

    texts, builtin = dict(generator.manifest.tasks), frozenset(generator.manifest.builtin_tasks)
    if builtin:
        texts = {item.name: item.descriptions[0] for item in dense_tasks() if item.name in builtin} | texts
    return {name: text for name, text in texts.items() if 0 < len(text.strip()) <= MAX_TEXT}


def _readings(texts: Sequence[str], reader: VectorReader, on_progress: OnProgress) -> list[torch.Tensor]:
    def report(done: int) -> None:
        on_progress(Progress("gen", "read the training tasks", done, len(texts)))

    if reader.recipe.pooling == "tokens":
        states = reader.read_all([reader.text_states(text) for text in texts], on_batch=report)
        return [item.float() for item in states]
    readings = []
    for index, text in enumerate(texts, start=1):
        readings.append(reader.read_text(text))
        report(index)
    return readings


def explain(generator: Generator, reading: torch.Tensor, adapter: Adapter, seen: Seen, learned: Learned) -> Explanation:
    """Return what a text and its adapter are near to.

    Args:
        generator: The generator that made the adapter.
        reading: The hidden states of the text alone, fp32 [T, hidden].
        adapter: The adapter in the form that is written.
        seen: The training tasks, as ``read_seen`` returns them.
        learned: The harvested adapters, as ``learned_adapters`` returns them.
    """
    c = generator.condition(reading).double()
    nearest: tuple[NearTask, ...] = ()
    if seen.tasks:
        cosines = torch.nn.functional.cosine_similarity(seen.conditions, c[None], dim=1)
        order = torch.argsort(cosines, descending=True, stable=True)[:NEAREST].tolist()
        nearest = tuple(NearTask(seen.tasks[at], seen.texts[at], float(cosines[at])) for at in order)
    near = _nearest_adapter(adapter, learned)
    limit = FAR[generator.model.config.reader]
    distances = range_of(c, generator.space.text.clamped(reading), seen, limit)
    return Explanation(nearest, near, len(learned.records), learned.count, distances)


def _nearest_adapter(adapter: Adapter, learned: Learned) -> NearAdapter | None:
    square = sum(inner(adapter, adapter, module) for module in adapter.factors)
    candidates = []
    for task, other in learned.adapters.items():
        both = sum(inner(adapter, other, module) for module in adapter.factors)
        near = closeness(square, both, sum(inner(other, other, module) for module in other.factors))
        if math.isfinite(near.error):  # no distance to an adapter of zeros
            candidates.append(NearAdapter(task, near.error, near.cosine))
    return min(candidates, key=lambda item: (item.distance, item.task), default=None)


def range_of(c: torch.Tensor, clamped: float, seen: Seen, limit: float) -> DistanceRange:
    """Return how far a condition lies from those of the training tasks.

    Args:
        c: The condition, fp64 [condition].
        clamped: The share of the reading's numbers that were clamped.
        seen: The training tasks.
        limit: The multiple of the usual distance above which a condition is out of range.
    """
    if not seen.tasks:
        return DistanceRange(0, clamped, None, None, None, None, limit, clamped > CLAMPED)
    distance = float((seen.conditions - c).norm(dim=1).min())
    between_tasks = seen.own_distances()
    if not len(between_tasks):
        return DistanceRange(len(seen.tasks), clamped, distance, None, None, None, limit, clamped > CLAMPED)
    usual = float(torch.quantile(between_tasks, 0.5))
    percentile = float((between_tasks < distance).double().mean())
    ratio = distance / usual if usual else None
    outside = distance > limit * usual or clamped > CLAMPED
    return DistanceRange(len(seen.tasks), clamped, distance, usual, percentile, ratio, limit, outside)
