"""Eval: the ladder of rungs on held-out test examples, through one loaded base."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.baselines.rungs import AverageRung, BaseRung, GeneratedRung, HarvestedRung, Rung, Unavailable
from icmlora_cli.errors import NotFound, UsageFault
from icmlora_cli.generator.checkpoint import Generator, load_generator
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.scoring import score
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.gen import check_base, generate_adapter, vector_recipe
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class Cell:
    """One rung on one task.

    Args:
        task: the task's name.
        seen: whether the generator learned from the task.
        rung: the rung's name.
        examples: how many test examples were scored; 0 where the rung has nothing.
        exact_match: share of whole answers right under greedy decoding; None where there is nothing.
        nll: mean negative log-likelihood of the answers, nats per token; None where there is nothing.
        reason: why there is nothing.
    """

    task: str
    seen: bool
    rung: str
    examples: int
    exact_match: float | None
    nll: float | None
    reason: str | None = None


@dataclass(frozen=True)
class EvalResult:
    """The table of an evaluation.

    Args:
        base: name of the base.
        generator: folder of the generator; None without one.
        rungs: names, in the ladder's order.
        cells: one a task and rung.
        seconds: wall time.
    """

    base: str
    generator: Path | None
    rungs: tuple[str, ...]
    cells: tuple[Cell, ...]
    seconds: float


def run(
    tasks: Sequence[Task],
    base: Base,
    home: Home,
    *,
    generator_folder: Path | None,
    limit: int | None = None,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> EvalResult:
    """Score base, described base, average, generated and harvested adapters on the tasks' test examples.

    Args:
        tasks: what to score on.
        base: the base model.
        home: the registry.
        generator_folder: the generator to score; None leaves its rung out.
        limit: test examples a task, at most; all by default.
        device: where the base runs.
        on_progress: told of each task and rung.

    Raises:
        UsageFault: if there is no task.
        BaseUnavailable: if the generator is of another base.
        CorruptFile: if a generator or adapter is broken.
    """
    started = time.monotonic()
    if not tasks:
        raise UsageFault("there is no task to score", hint="icmlora task list")
    generator = None if generator_folder is None else load_generator(generator_folder)
    if generator is not None:
        check_base(generator, base)
    loaded = load_base(base, device=device)
    seen = _seen(generator)
    ladder = _ladder(generator, loaded, home, seen)
    cells: list[Cell] = []
    for index, task in enumerate(tasks):
        for at, rung in enumerate(ladder):
            on_progress(Progress("eval", task.name, at, len(ladder), rung.name, index, len(tasks)))
            cells.append(_cell(rung, task, loaded, task.name in seen, limit))
        on_progress(Progress("eval", task.name, len(ladder), len(ladder), "", index + 1, len(tasks)))
    names = tuple(rung.name for rung in ladder)
    return EvalResult(base.name, generator_folder, names, tuple(cells), time.monotonic() - started)


def _seen(generator: Generator | None) -> frozenset[str]:
    tasks = generator.about.get("tasks") if generator is not None else None
    return frozenset(tasks) if isinstance(tasks, dict) else frozenset()


def _averaged(store: AdapterStore, base: Base, names: frozenset[str]) -> tuple[AdapterRecord, ...]:
    """Return the newest adapters of the generator's tasks; without a generator, of all tasks of split ``train``."""
    tasks = TaskStore(store.home)
    records = []
    for task in (tasks.get(name) for name in tasks.names() if not names or name in names):
        if task.split == "train":
            with suppress(NotFound):
                records.append(store.latest(base, task))
    return tuple(records)


def _ladder(generator: Generator | None, loaded: LoadedBase, home: Home, seen: frozenset[str]) -> list[Rung]:
    store = AdapterStore(home)
    averaged = _averaged(store, loaded.base, seen)
    ladder: list[Rung] = [BaseRung(), BaseRung(described=True), AverageRung(store, averaged)]
    if generator is not None:
        reader = VectorReader(loaded, vector_recipe(generator), home)
        ladder.append(GeneratedRung(lambda text: generate_adapter(generator, reader, text)))
    ladder.append(HarvestedRung(store, loaded.base))
    return ladder


def _cell(rung: Rung, task: Task, loaded: LoadedBase, seen: bool, limit: int | None) -> Cell:
    try:
        adapter = rung.adapter(task)
    except Unavailable as reason:
        return Cell(task.name, seen, rung.name, 0, None, None, str(reason))
    examples = task.examples("test")[:limit]
    rows = encode_task(loaded.tokenizer, task, examples, described=rung.described)
    with merged(loaded.model, adapter):
        scores = score(loaded, rows)
    return Cell(task.name, seen, rung.name, len(rows), scores.exact_match, scores.mean_nll)
