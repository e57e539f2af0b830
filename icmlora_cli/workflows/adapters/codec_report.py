"""What the shared basis keeps of the newest adapters at each width, and what it costs in the tasks' own metrics."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from icmlora_cli.config.train import DataRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.report.figures import metric as metric_called
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.codec import Codec, energy_kept, fit_codec
from icmlora_cli.weights.frame import FrameSpec, learned_directions
from icmlora_cli.weights.layout import layout_of
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.evaluate.task_metric import task_metric
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_memory, silent
from icmlora_cli.workflows.train.inputs import Harvested, chosen_frame, find_harvested, frame_codec

WIDTHS = (4, 8, 16, 24, 32, 48)
LIMIT = 32


@dataclass(frozen=True)
class Measured:
    """The last checkpoint of a task's newest adapter, as it is.

    Args:
        task: The name of the task.
        key: The key of the adapter's record.
        rank: the largest of its modules.
        modules: how many of the basis' modules it is on.
        metric: the task's; None where the task has no test examples, or nothing was scored.
        before: that metric with the adapter itself; None likewise.
    """

    task: str
    key: str
    rank: int
    modules: int
    metric: str | None
    before: float | None


@dataclass(frozen=True)
class Kept:
    """What a width keeps of one adapter.

    Args:
        task: whose adapter.
        energy: share of ||delta-W||^2 that is kept, 0 to 1: 1 - the squared relative error.
        after: the task's metric with the adapter's projection onto the basis; None where it was not scored.
    """

    task: str
    energy: float
    after: float | None


@dataclass(frozen=True)
class MetricCost:
    """What a width costs in one metric.

    Args:
        metric: The name of the metric.
        tasks: how many tasks are scored by it.
        before: mean over them, with the adapters themselves.
        after: mean over them, with the projections.
        kept: after / before, or before / after where lower is better; None where that divides by zero.
    """

    metric: str
    tasks: int
    before: float
    after: float
    kept: float | None


@dataclass(frozen=True)
class WidthReport:
    """A basis of one width.

    Args:
        width: R that was asked for.
        used: R that the basis has: less where the adapters span less, more with a frame's learned directions.
        numbers: numbers of all cores: what is one adapter's own.
        basis_bytes: The size of the basis in fp32, in bytes; a frame counts its learned directions alone.
        energy: mean share of ||delta-W||^2 that is kept, over adapters.
        worst: the least of them.
        worst_task: whose that is.
        costs: by metric; empty where nothing was scored.
        adapters: what is kept of each.
    """

    width: int
    used: int
    numbers: int
    basis_bytes: int
    energy: float
    worst: float
    worst_task: str
    costs: tuple[MetricCost, ...]
    adapters: tuple[Kept, ...]


@dataclass(frozen=True)
class CodecReport:
    """Adapters in one basis, at several widths.

    Args:
        basis: ``learned`` from the adapters, or a seeded ``frame``.
        frame_seed: The seed of the frame; None for a learned basis.
        modules: The modules of the basis, which are all that some adapter is on.
        checkpoints: how many shaped the basis: all kept ones of all adapters.
        adapters: what was measured.
        widths: from the narrowest to the widest.
        unscored: tasks that have no test examples to score on; empty where nothing was to be scored.
        seconds: wall time.
    """

    basis: Literal["learned", "frame"]
    frame_seed: int | None
    modules: int
    checkpoints: int
    adapters: tuple[Measured, ...]
    widths: tuple[WidthReport, ...]
    unscored: tuple[str, ...]
    seconds: float


def run(
    tasks: Sequence[Task],
    base: Base,
    recipe: DataRecipe,
    home: Home,
    *,
    widths: Sequence[int] | None = None,
    limit: int | None = LIMIT,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> CodecReport:
    """Measure what a basis keeps of the newest adapters of the tasks, whatever their ranks, inits and modules.

    All kept checkpoints shape the basis, and the last ones are measured. A learned basis is fitted once, for its
    directions are ordered: the narrower ones are the leading directions of the widest.

    Args:
        tasks: each with an adapter on the base.
        base: the base model.
        recipe: The recipe; ``basis``, ``frame_seed``, ``frame_width`` and ``directions`` count, as in a training.
        home: the registry.
        widths: R of each basis; None takes ``WIDTHS``, and the frame's own where there is one.
        limit: test examples a task, at most; None scores nothing, and needs no base model in memory.
        device: where the base runs.
        on_progress: told of each basis and each task.

    Raises:
        UsageError: if there is no task, or a width is less than 1.
        NotFoundError: if a task has no adapter.
        CorruptFileError: if an adapter is broken.
    """
    started = time.monotonic()
    _check(tasks, widths)
    harvested = find_harvested(tasks, base, AdapterStore(home), all_needed=True)
    spec = chosen_frame(harvested, recipe)
    asked = sorted(set(widths if widths is not None else (*WIDTHS, *(() if spec is None else (spec.width,)))))
    if spec is None:
        codecs = _learned(harvested, asked, on_progress)
    else:
        codecs = _frames(harvested, asked, spec, recipe.directions, base.model_id, on_progress)
    distinct = {codec.width: codec for codec in codecs.values()}
    scores: Mapping[str, _Scores] = {}
    if limit is not None:
        scores = _scored(
            harvested,
            distinct,
            load_base(base, device=device, on_note=notes_of_memory(on_progress)),
            limit,
            on_progress,
        )
    energies = {
        used: {item.task.name: energy_kept(codec, item.adapters[-1]) for item in harvested}
        for used, codec in distinct.items()
    }
    return CodecReport(
        basis="learned" if spec is None else "frame",
        frame_seed=None if spec is None else spec.seed,
        modules=len(codecs[asked[0]].layout.modules),
        checkpoints=sum(len(item.adapters) for item in harvested),
        adapters=tuple(_measured(item, scores.get(item.task.name)) for item in harvested),
        widths=tuple(
            _width_report(width, codec, spec, energies[codec.width], scores) for width, codec in codecs.items()
        ),
        unscored=() if limit is None else tuple(task.name for task in tasks if task.name not in scores),
        seconds=time.monotonic() - started,
    )


def _check(tasks: Sequence[Task], widths: Sequence[int] | None) -> None:
    if not tasks:
        raise UsageError("there is no task whose adapter could be measured", hint="icmlora task list")
    if widths is not None and (not widths or min(widths) < 1):
        raise UsageError(
            f"{min(widths) if widths else 'nothing'} is no list of widths: each is a whole number from 1 on",
            hint=f"--widths {','.join(map(str, WIDTHS))}",
        )


def _learned(harvested: Sequence[Harvested], widths: Sequence[int], on_progress: OnProgress) -> dict[int, Codec]:
    """Return the learned basis of each width, all of them from one fit."""
    on_progress(Progress("fit", "basis", 0, 1))
    everything = [adapter for item in harvested for adapter in item.adapters]
    widest = fit_codec(everything, energy=1.0, max_width=max(widths))
    on_progress(Progress("fit", "basis", 1, 1))
    return {width: widest.truncated(width) for width in widths}


def _frames(
    harvested: Sequence[Harvested],
    widths: Sequence[int],
    spec: FrameSpec,
    directions: int,
    base_model: str,
    on_progress: OnProgress,
) -> dict[int, Codec]:
    """Return the frame of each width; a seed gives each width a frame of its own, not a part of a wider one."""
    layout = layout_of([adapter for item in harvested for adapter in item.adapters])
    codecs: dict[int, Codec] = {}
    for index, width in enumerate(widths):
        on_progress(Progress("fit", "frames", index, len(widths)))
        codecs[width] = frame_codec(harvested, layout, FrameSpec(spec.seed, width), base_model, directions)
    on_progress(Progress("fit", "frames", len(widths), len(widths)))
    return codecs


@dataclass(frozen=True)
class _Scores:
    """A task's metric with its adapter, and with the projection onto each basis, by the basis' width."""

    metric: str
    before: float
    after: Mapping[int, float]


def _scored(
    harvested: Sequence[Harvested],
    codecs: Mapping[int, Codec],
    loaded: LoadedBase,
    limit: int,
    on_progress: OnProgress,
) -> dict[str, _Scores]:
    """Score each task that has test examples with its adapter and with the adapter's projections."""
    found: dict[str, _Scores] = {}
    shown = {item.task.name: item.task.examples("test")[:limit] for item in harvested if item.task.has_examples}
    able = [item for item in harvested if shown.get(item.task.name)]
    for index, item in enumerate(able):
        task, adapter, examples = item.task, item.adapters[-1], shown[item.task.name]
        on_progress(Progress("score", task.name, 0, len(codecs) + 1, "", index, len(able)))
        before = _metric(loaded, task, examples, adapter)
        after: dict[int, float] = {}
        for width, codec in codecs.items():
            on_progress(Progress("score", task.name, len(after) + 1, len(codecs) + 1, f"R {width}", index, len(able)))
            after[width] = _metric(loaded, task, examples, codec.decode(codec.encode(adapter)))
        found[task.name] = _Scores(task.metric, before, after)
        on_progress(Progress("score", task.name, len(codecs) + 1, len(codecs) + 1, "", index + 1, len(able)))
    return found


def _metric(loaded: LoadedBase, task: Task, examples: Sequence[Example], adapter: Adapter) -> float:
    with merged(loaded.model, adapter):
        return task_metric(loaded, task, examples)


def _measured(item: Harvested, scores: _Scores | None) -> Measured:
    adapter = item.adapters[-1]
    return Measured(
        task=item.task.name,
        key=item.record.key,
        rank=adapter.rank,
        modules=len(adapter.factors),
        metric=None if scores is None else scores.metric,
        before=None if scores is None else scores.before,
    )


def _width_report(
    width: int, codec: Codec, spec: FrameSpec | None, energies: Mapping[str, float], scores: Mapping[str, _Scores]
) -> WidthReport:
    kept = codec.tensors() if spec is None else learned_directions(codec, width)
    worst_task = min(energies, key=lambda name: energies[name])
    return WidthReport(
        width=width,
        used=codec.width,
        numbers=int(codec.mask().sum()),
        basis_bytes=sum(item.numel() * item.element_size() for item in kept.values()),
        energy=sum(energies.values()) / len(energies),
        worst=energies[worst_task],
        worst_task=worst_task,
        costs=_costs(scores, codec.width),
        adapters=tuple(
            Kept(name, energy, scores[name].after[codec.width] if name in scores else None)
            for name, energy in energies.items()
        ),
    )


def _costs(scores: Mapping[str, _Scores], used: int) -> tuple[MetricCost, ...]:
    """Return what a basis costs in each metric that some task has."""
    costs = []
    for name in sorted({item.metric for item in scores.values()}):
        own = [item for item in scores.values() if item.metric == name]
        before = sum(item.before for item in own) / len(own)
        after = sum(item.after[used] for item in own) / len(own)
        above, below = (after, before) if metric_called(name).higher else (before, after)
        costs.append(MetricCost(name, len(own), before, after, above / below if below else None))
    return tuple(costs)
