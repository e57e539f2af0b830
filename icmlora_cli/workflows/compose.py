"""From scored cells to the result: parts, near-duplicates, memorisation, maps and storage."""

import math
from collections.abc import Mapping, Sequence

import torch

from icmlora_cli.baselines.controls import words_in_common
from icmlora_cli.baselines.generated import Source, condition_vectors
from icmlora_cli.baselines.rung import Rung, TaskContext
from icmlora_cli.errors import NotFound
from icmlora_cli.registry import files, provenance
from icmlora_cli.registry.adapters import AdapterRecord
from icmlora_cli.registry.tasks import Task
from icmlora_cli.report import result as schema
from icmlora_cli.report.statistics import Resampler
from icmlora_cli.report.summary import Summary
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.compare import gram, principal_map
from icmlora_cli.workflows.cells import RawCell
from icmlora_cli.workflows.ladder import Bench, seen_tasks, swapped

SAME_DESCRIPTION = 0.9  # of the words of two descriptions
SAME_EXAMPLES = 0.5  # of the unseen task's test examples


def compose(
    bench: Bench, contexts: Sequence[TaskContext], rungs: Sequence[Rung], cells: Sequence[RawCell]
) -> schema.Result:
    """Return the result of an evaluation, all of it decided by the inputs.

    Args:
        bench: what was evaluated.
        contexts: the tasks, in order.
        rungs: the ladder, in order.
        cells: one a task and rung.
    """
    recipe = bench.recipe
    parts = {context.task.name: part_of(context.task, bench) for context in contexts}
    resampler = Resampler(recipe.resamples, recipe.seed)
    scores = {(cell.task, cell.rung): cell.scores for cell in cells if cell.reason is None}
    names = tuple(rung.name for rung in rungs)
    summary = Summary(scores, parts, names, resampler)
    generated = _generated(bench, contexts)
    counts = {cell.task: len(item.numerators) for cell in cells for item in cell.scores.values()}
    neighbours = _neighbours(bench, generated)
    return schema.Result(
        schema_=schema.SCHEMA,
        protocol=recipe.protocol,
        base=schema.BaseInfo(
            name=bench.loaded.base.name,
            model_id=bench.loaded.base.model_id,
            revision=bench.loaded.base.revision,
            weight_hash=bench.loaded.base.weight_hash,
        ),
        generator=_generator_info(bench),
        recipe=recipe.model_dump(mode="json"),
        rungs=tuple(schema.RungInfo(name=rung.name, title=rung.title, uses=rung.uses) for rung in rungs),
        tasks=tuple(
            _task_info(bench, context, parts, counts, neighbours.get(context.task.name), names) for context in contexts
        ),
        cells=tuple(_cell(cell, resampler) for cell in cells),
        means=summary.means(),
        comparisons=summary.comparisons(),
        text_specific=summary.text_specific(),
        vectors=_vector_map(bench, contexts, parts),
        adapters=_adapter_map(bench, contexts, parts, generated),
        storage=_storage(bench),
        made=schema.Made(
            versions=provenance.versions(),
            command=provenance.command_line(),
            device=str(bench.loaded.device),
            dtype=str(bench.loaded.dtype).removeprefix("torch."),
        ),
    )


def part_of(task: Task, bench: Bench) -> schema.Part:
    """Return whether a task was seen, and if not, how far it is from what was: by its family, where it names one.

    Without a generator the tasks of split ``train`` are the seen ones.
    """
    learned = seen_tasks(bench.generator) or {item.name for item in bench.learned}
    if task.name in learned:
        return "seen"
    if task.family is None:
        return "unseen"
    families = {item.family for item in bench.learned}
    return "unseen combination" if task.family in families else "unseen family"


def similar(task: Task, learned: Sequence[Task]) -> schema.Similar | None:
    """Return the training task that an unseen task is most like, by its examples first, then by descriptions."""
    tests = {(item.input, item.output) for item in task.examples("test")}
    best: schema.Similar | None = None
    for other in learned:
        known = {(item.input, item.output) for part in ("train", "validation", "test") for item in other.examples(part)}
        shared = len(tests & known) / len(tests) if tests else 0.0
        words = max(words_in_common(one, two) for one in task.descriptions for two in other.descriptions)
        duplicate = shared >= SAME_EXAMPLES or words >= SAME_DESCRIPTION
        found = schema.Similar(task=other.name, descriptions=words, examples=shared, duplicate=duplicate)
        if best is None or (found.duplicate, shared, words) > (best.duplicate, best.examples, best.descriptions):
            best = found
    return best


def _task_info(
    bench: Bench,
    context: TaskContext,
    parts: Mapping[str, schema.Part],
    counts: Mapping[str, int],
    neighbour: schema.Neighbour | None,
    rungs: Sequence[str],
) -> schema.TaskInfo:
    task = context.task
    unseen = parts[task.name] != "seen"
    return schema.TaskInfo(
        name=task.name,
        description=task.descriptions[0],
        part=parts[task.name],
        metric=task.metric,
        family=task.family,
        examples=counts.get(task.name, 0),
        similar=similar(task, bench.learned) if unseen else None,
        neighbour=neighbour,
        swapped_with=swapped(bench).other(context) if "swapped-text" in rungs else None,
    )


def _cell(cell: RawCell, resampler: Resampler) -> schema.Cell:
    return schema.Cell(
        task=cell.task,
        rung=cell.rung,
        reason=cell.reason,
        figures={metric: resampler.figure(cell.task, item) for metric, item in cell.scores.items()},
        reconstruction=cell.reconstruction,
        about=dict(cell.about),
        outputs=cell.outputs,
    )


def _generated(bench: Bench, contexts: Sequence[TaskContext]) -> dict[str, Adapter]:
    source: Source | None = bench.source()
    return {} if source is None else {context.task.name: source.make(context.text) for context in contexts}


def _neighbours(bench: Bench, generated: Mapping[str, Adapter]) -> dict[str, schema.Neighbour]:
    """Return, for each generated adapter, the harvested training adapter nearest to it by ||difference|| / ||own||."""
    if not generated or not bench.library.records:
        return {}
    known = bench.library.adapters()
    products = gram([*known, *generated.values()])
    found = {}
    for index, task in enumerate(generated):
        at = len(known) + index
        distances = []
        for other, name in enumerate(bench.library.tasks):
            own, wanted, both = (float(products[i, j]) for i, j in ((at, at), (other, other), (at, other)))
            distance = math.sqrt(max(0.0, own - 2 * both + wanted) / wanted) if wanted > 0 else math.inf
            cosine = both / math.sqrt(own * wanted) if own > 0 and wanted > 0 else 0.0
            distances.append((distance, name, cosine))
        distance, name, cosine = min(distances)
        found[task] = schema.Neighbour(task=name, distance=distance, cosine=max(-1.0, min(1.0, cosine)))
    return found


def _points(
    rows: Sequence[tuple[str, str]], parts: Mapping[str, schema.Part], products: torch.Tensor
) -> schema.Map | None:
    if len(rows) < 3:
        return None
    coordinates, explained = principal_map(products)
    points = tuple(
        schema.Point.model_validate(
            {"task": task, "kind": kind, "part": parts.get(task, "seen"), "x": float(x), "y": float(y)}
        )
        for (task, kind), (x, y) in zip(rows, coordinates.tolist(), strict=True)
    )
    return schema.Map(points=points, explained=explained)


def _vector_map(bench: Bench, contexts: Sequence[TaskContext], parts: Mapping[str, schema.Part]) -> schema.Map | None:
    """Map the task vectors of descriptions and of the shots, each kind standardised on its own."""
    reader = bench.reader()
    rows: list[tuple[str, str]] = []
    blocks: list[torch.Tensor] = []
    texts = [reader.text(context.text) for context in contexts]
    shown = [
        (context, condition_vectors(reader, None, context.shots, context.task.template.kind)[1]) for context in contexts
    ]
    there = [(context, vector) for context, vector in shown if vector is not None]
    for kind, pairs in (("text", list(zip(contexts, texts, strict=True))), ("demonstrations", there)):
        if len(pairs) < 2:
            continue
        stacked = torch.stack([vector for _, vector in pairs]).double()
        blocks.append((stacked - stacked.mean(0)) / stacked.std(0).clamp(min=1e-6))
        rows += [(context.task.name, kind) for context, _ in pairs]
    if not blocks:
        return None
    vectors = torch.cat(blocks)
    return _points(rows, parts, vectors @ vectors.T)


def _adapter_map(
    bench: Bench, contexts: Sequence[TaskContext], parts: Mapping[str, schema.Part], generated: Mapping[str, Adapter]
) -> schema.Map | None:
    """Map the delta-W of the harvested adapters (training tasks and evaluated ones) and of the generated ones."""
    harvested = {name: bench.library.adapter(name) for name in bench.library.tasks}
    for context in contexts:
        if context.task.name not in harvested:
            adapter = oracle(bench, context.task)
            if adapter is not None:
                harvested[context.task.name] = adapter
    rows = [(task, "harvested") for task in harvested] + [(task, "generated") for task in generated]
    everything = [*harvested.values(), *generated.values()]
    return _points(rows, parts, gram(everything)) if len(everything) > 2 else None


def oracle(bench: Bench, task: Task) -> Adapter | None:
    """Return the harvested adapter of a task, or None.

    Raises:
        CorruptFile: if it is broken.
    """
    if task.name in bench.library.tasks:
        return bench.library.adapter(task.name)
    record, store = oracle_record(bench, task), bench.library.store
    return None if record is None else read_adapter(store.checked(record, record.checkpoints[-1]))


def oracle_record(bench: Bench, task: Task) -> AdapterRecord | None:
    """Return the manifest of the newest harvested adapter of a task, or None."""
    try:
        return bench.library.store.latest(bench.loaded.base, task)
    except NotFound:
        return None


def _generator_info(bench: Bench) -> schema.GeneratorInfo | None:
    if bench.generator is None or bench.folder is None:
        return None
    about = bench.generator.about
    figures, curve = about.get("figures"), about.get("curve")
    return schema.GeneratorInfo(
        name=bench.folder.name,
        key=str(about.get("key")),
        arch=bench.generator.model.config.arch,
        tasks=tuple(sorted(seen_tasks(bench.generator))),
        figures={
            name: value
            for name, value in (figures.items() if isinstance(figures, dict) else ())
            if isinstance(value, float | int) and name != "seconds"
        },
        curve=tuple(_curve_row(row) for row in (curve if isinstance(curve, list) else [])),
    )


def _curve_row(row: object) -> tuple[int, dict[str, float]]:
    assert isinstance(row, list | tuple)
    if len(row) == 3:  # written before losses had names
        return int(row[0]), {"reconstruction": float(row[1]), "kl": float(row[2])}
    return int(row[0]), {str(name): float(value) for name, value in dict(row[1]).items()}


def _storage(bench: Bench) -> schema.StorageInfo | None:
    if bench.folder is None or not bench.library.records:
        return None
    records = bench.library.records
    own, one = files.folder_bytes(bench.folder), sum(record.checkpoints[-1].bytes for record in records)
    return schema.StorageInfo(
        generator=own,
        tasks=len(records),
        all_checkpoints=sum(record.bytes for record in records),
        one_each=one,
        break_even=math.ceil(own / (one / len(records))) if one else None,
    )
