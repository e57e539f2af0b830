"""What a text is near to, and how far it lies from all that the generator saw.

Training tasks are compared by the generator's own reading, harvested adapters by delta-W.
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

NEAREST = 5  # training tasks that are named
FAR = {"attention": 1.25, "mean": 3.75}  # times the usual distance, by reader: farther is out of range
CLAMPED = 0.05  # of a reading's numbers: more beyond 5 standard deviations is out of range


@dataclass(frozen=True)
class NearTask:
    """A training task and the cosine of its condition with that of the text."""

    task: str
    description: str
    cosine: float


@dataclass(frozen=True)
class NearAdapter:
    """The nearest harvested adapter: whose, ||generated - harvested|| / ||harvested|| of delta-W, and their cosine."""

    task: str
    distance: float
    cosine: float


@dataclass(frozen=True)
class DistanceRange:
    """How far the reading of a text lies from those of the training tasks' first descriptions.

    Args:
        tasks: how many of those there are.
        clamped: share of the numbers of the text's reading that are clamped, being beyond 5 standard deviations.
        distance: from the condition of the text to the nearest training task's, Euclidean; None without tasks.
        usual: the median of the same distance from each training task to its nearest other; None below two.
        percentile: share of the training tasks that are nearer to their nearest other than ``distance``, 0 to 1.
        ratio: distance / usual.
        limit: the ratio above which a text is out of range, by the generator's reader.
        outside: the ratio is above the limit, or more than 5 % of the numbers are clamped.
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
        nearest: training tasks, the most alike first.
        adapter: the nearest harvested adapter; None where none is here.
        adapters: how many were compared.
        learned: how many the generator learned from.
        range: how far the text lies from what it saw.
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
        tasks: n names.
        texts: their first descriptions.
        conditions: fp64 [n, condition].
    """

    tasks: tuple[str, ...]
    texts: tuple[str, ...]
    conditions: torch.Tensor

    def own_distances(self) -> torch.Tensor:
        """Return the distance from each task's condition to the nearest other one's, fp64 [n]; nothing below two."""
        if len(self.tasks) < 2:
            return torch.zeros(0, dtype=torch.float64)
        apart = torch.cdist(self.conditions, self.conditions, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.fill_diagonal_(torch.inf).amin(1)


def read_seen(generator: Generator, reader: VectorReader, on_progress: OnProgress) -> Seen:
    """Read the first descriptions of the tasks that a generator learned from, registered and built-in."""
    texts = _descriptions(generator)
    readings = _readings(list(texts.values()), reader, on_progress)
    conditions = [generator.condition(item).double() for item in readings]
    return Seen(tuple(texts), tuple(texts.values()), torch.stack(conditions) if conditions else torch.zeros(0, 0))


def _descriptions(generator: Generator) -> dict[str, str]:
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
    found = []
    for index, text in enumerate(texts, start=1):
        found.append(reader.read_text(text))
        report(index)
    return found


def explain(generator: Generator, reading: torch.Tensor, adapter: Adapter, seen: Seen, learned: Learned) -> Explanation:
    """Say what a text and its adapter are near to.

    Args:
        generator: what made the adapter.
        reading: of the text alone, fp32 [T, hidden].
        adapter: as it is written.
        seen: the training tasks.
        learned: the harvested adapters that are here.
    """
    c = generator.condition(reading).double()
    nearest: tuple[NearTask, ...] = ()
    if seen.tasks:
        cosines = torch.nn.functional.cosine_similarity(seen.conditions, c[None], dim=1)
        order = torch.argsort(cosines, descending=True, stable=True)[:NEAREST].tolist()
        nearest = tuple(NearTask(seen.tasks[at], seen.texts[at], float(cosines[at])) for at in order)
    found = _nearest_adapter(adapter, learned)
    limit = FAR[generator.model.config.reader]
    place = range_of(c, generator.space.text.clamped(reading), seen, limit)
    return Explanation(nearest, found, len(learned.adapters), learned.count, place)


def _nearest_adapter(adapter: Adapter, learned: Learned) -> NearAdapter | None:
    own = sum(inner(adapter, adapter, module) for module in adapter.factors)
    found = []
    for task, other in learned.adapters.items():
        both = sum(inner(adapter, other, module) for module in adapter.factors)
        near = closeness(own, both, sum(inner(other, other, module) for module in other.factors))
        if math.isfinite(near.error):  # an adapter of zeros: nothing to be near to
            found.append(NearAdapter(task, near.error, near.cosine))
    return min(found, key=lambda item: (item.distance, item.task), default=None)


def range_of(c: torch.Tensor, clamped: float, seen: Seen, limit: float) -> DistanceRange:
    """Return how far a condition lies from those of the training tasks.

    Args:
        c: fp64 [condition].
        clamped: share of the reading's numbers that were clamped.
        seen: the training tasks.
        limit: times the usual distance: farther is out of range.
    """
    if not seen.tasks:
        return DistanceRange(0, clamped, None, None, None, None, limit, clamped > CLAMPED)
    distance = float((seen.conditions - c).norm(dim=1).min())
    own = seen.own_distances()
    if not len(own):
        return DistanceRange(len(seen.tasks), clamped, distance, None, None, None, limit, clamped > CLAMPED)
    usual = float(torch.quantile(own, 0.5))
    percentile = float((own < distance).double().mean())
    ratio = distance / usual if usual else None
    outside = distance > limit * usual or clamped > CLAMPED
    return DistanceRange(len(seen.tasks), clamped, distance, usual, percentile, ratio, limit, outside)
