"""Composes the result of an evaluation: parts, near-duplicates, memorisation distances, maps and storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.disk import files
from icmlora_cli.methods.controls import words_in_common
from icmlora_cli.methods.method import Method, TaskContext
from icmlora_cli.provenance.versions import command_line, versions
from icmlora_cli.registry.tasks import Task
from icmlora_cli.report import result as schema
from icmlora_cli.report.statistics import Resampler
from icmlora_cli.report.summary import Summary
from icmlora_cli.tasks.builtin import BuiltinTask
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.splits import Part
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.compare import closeness, gram, principal_map
from icmlora_cli.weights.registered import read_last
from icmlora_cli.workflows.evaluate.methods import EvalContext, seen_tasks, swapped
from icmlora_cli.workflows.evaluate.scores import RawScore
from icmlora_cli.workflows.registry.storage import break_even

SAME_DESCRIPTION = 0.9  # the share of common words from which two descriptions count as the same
SAME_EXAMPLES = 0.5  # the share of an unseen task's test examples that makes it a near-duplicate


def compose(
    evaluation: EvalContext, contexts: Sequence[TaskContext], methods: Sequence[Method], scores: Sequence[RawScore]
) -> schema.Result:
    """Return the result of an evaluation, which the inputs alone decide.

    Args:
        evaluation: The base, the generator, the recipe and the training tasks.
        contexts: The evaluated tasks, in order.
        methods: The methods, in order.
        scores: One score for each task and method.
    """
    recipe = evaluation.recipe
    parts = {context.task.name: part_of(context.task, evaluation) for context in contexts}
    resampler = Resampler(recipe.resamples, recipe.seed)
    values = {(score.task, score.method): score.scores for score in scores if score.reason is None}
    names = tuple(method.name for method in methods)
    summary = Summary(values, parts, names, resampler)
    adapters = _Adapters.of(evaluation, contexts)
    return schema.Result(
        schema_=schema.SCHEMA,
        protocol=recipe.protocol,
        base=schema.BaseInfo(
            name=evaluation.loaded.base.public_name,
            model_id=evaluation.loaded.base.model_id,
            revision=evaluation.loaded.base.revision,
            weight_hash=evaluation.loaded.base.weight_hash,
        ),
        generator=_generator_info(evaluation),
        recipe=recipe.model_dump(mode="json"),
        methods=tuple(schema.MethodInfo(name=method.name, title=method.title, uses=method.uses) for method in methods),
        tasks=_task_infos(evaluation, contexts, parts, scores, _neighbours(evaluation, adapters)),
        scores=tuple(_score(score, resampler) for score in scores),
        means=summary.means(),
        comparisons=summary.comparisons(),
        text_specific=summary.text_specific(),
        unrelated=summary.unrelated({(score.task, score.method): score.unrelated for score in scores}),
        vectors=_vector_map(evaluation, contexts, parts),
        adapters=_points(adapters.rows, parts, adapters.products),
        storage=_storage(evaluation),
        made=schema.ResultProvenance(
            versions=versions(),
            command=command_line(),
            device=str(evaluation.loaded.device),
            dtype=str(evaluation.loaded.dtype).removeprefix("torch."),
        ),
        pictures=_pictures(contexts, scores),
    )


def _pictures(contexts: Sequence[TaskContext], scores: Sequence[RawScore]) -> dict[str, schema.ShownPicture]:
    """Return the images of all outputs, made small."""
    wanted = {output.picture for score in scores for output in score.outputs if output.picture is not None}
    if not wanted:
        return {}
    from icmlora_cli.tasks.pictures import thumbnail

    every = (example.picture for context in contexts for example in context.task.examples("test"))
    found = {item.sha256: thumbnail(item) for item in every if item is not None and item.sha256 in wanted}
    return {
        key: schema.ShownPicture(uri=uri, width=width, height=height)
        for key, (uri, width, height) in sorted(found.items())
    }


def _task_infos(
    evaluation: EvalContext,
    contexts: Sequence[TaskContext],
    parts: Mapping[str, schema.Part],
    scores: Sequence[RawScore],
    neighbours: Mapping[str, schema.NeighbourInfo],
) -> tuple[schema.TaskInfo, ...]:
    """Describe the evaluated tasks; those that the generator has not seen are compared with all that it may have."""
    counts = {score.task: len(item.numerators) for score in scores for item in score.scores.values()}
    builtin: tuple[BuiltinTask, ...] = ()
    known: dict[str, frozenset[Example]] = {}
    if set(parts.values()) != {"seen"}:
        registered = {task.name for task in evaluation.learned}
        builtin = tuple(task for task in evaluation.builtin if task.name not in registered)
        known = _examples(evaluation.learned) | {item.name: frozenset(item.examples()) for item in builtin}
    others = swapped(evaluation) if any(score.method == "swapped-text" for score in scores) else None
    return tuple(
        schema.TaskInfo(
            name=context.task.name,
            description=context.text,
            part=parts[context.task.name],
            metric=context.task.metric,
            family=context.task.family,
            examples=counts.get(context.task.name, 0),
            similar=None
            if parts[context.task.name] == "seen"
            else similar(context.task, (*evaluation.learned, *builtin), known),
            neighbour=neighbours.get(context.task.name),
            swapped_with=None if others is None else others.other(context),
        )
        for context in contexts
    )


def part_of(task: Task, evaluation: EvalContext) -> schema.Part:
    """Return whether a task was seen in training, and otherwise, by its family, which kind of unseen task it is.

    Without a generator the tasks of split ``train`` count as seen.
    """
    learned = seen_tasks(evaluation.generator) or {item.name for item in evaluation.learned}
    if task.name in learned:
        return "seen"
    if task.family is None:
        return "unseen"
    families = {item.family for item in evaluation.learned} | {item.family for item in evaluation.builtin}
    return "unseen combination" if task.family in families else "unseen family"


def _examples(tasks: Sequence[Task]) -> dict[str, frozenset[Example]]:
    """Return all examples of each task, by its name."""
    parts: tuple[Part, ...] = ("train", "validation", "test")
    return {task.name: frozenset(item for part in parts for item in task.examples(part)) for task in tasks}


def similar(
    task: Task, learned: Sequence[Task | BuiltinTask], known: Mapping[str, frozenset[Example]]
) -> schema.Similar | None:
    """Return the training task that an unseen task is most like, by its examples first, then by descriptions.

    Args:
        task: The unseen task.
        learned: The training tasks.
        known: The examples of each training task, by its name.
    """
    tests = set(task.examples("test"))
    best: schema.Similar | None = None
    for other in learned:
        shared = len(tests & known[other.name]) / len(tests) if tests else 0.0
        words = max(words_in_common(one, two) for one in task.descriptions for two in other.descriptions)
        duplicate = shared >= SAME_EXAMPLES or words >= SAME_DESCRIPTION
        similarity = schema.Similar(task=other.name, descriptions=words, examples=shared, duplicate=duplicate)
        if best is None or (duplicate, shared, words) > (best.duplicate, best.examples, best.descriptions):
            best = similarity
    return best


def _score(score: RawScore, resampler: Resampler) -> schema.MethodScore:
    return schema.MethodScore(
        task=score.task,
        method=score.method,
        reason=score.reason,
        figures={metric: resampler.figure(score.task, item) for metric, item in score.scores.items()},
        reconstruction=score.reconstruction,
        unrelated=None if score.unrelated is None else resampler.figure(score.task, score.unrelated),
        about=dict(score.about),
        outputs=score.outputs,
    )


@dataclass(frozen=True)
class _Adapters:
    """The harvested adapters, first of the training tasks and then of other evaluated ones, and the generated ones.

    Args:
        rows: The task and the kind (``harvested`` or ``generated``) of each of the n adapters.
        products: The inner products of their delta-W, fp64 [n, n].
    """

    rows: tuple[tuple[str, str], ...]
    products: torch.Tensor

    @classmethod
    def of(cls, evaluation: EvalContext, contexts: Sequence[TaskContext]) -> "_Adapters":
        harvested = {name: evaluation.library.adapter(name) for name in evaluation.library.tasks}
        for context in contexts:
            if context.task.name not in harvested:
                adapter = oracle(evaluation, context.task)
                if adapter is not None:
                    harvested[context.task.name] = adapter
        source = evaluation.source()
        generated = {} if source is None else {item.task.name: source.make(item.text) for item in contexts}
        rows = [(task, "harvested") for task in harvested] + [(task, "generated") for task in generated]
        return cls(tuple(rows), gram([*harvested.values(), *generated.values()]))


def _neighbours(evaluation: EvalContext, adapters: _Adapters) -> dict[str, schema.NeighbourInfo]:
    """Return the training adapter that is nearest to each generated one by ||difference|| / ||harvested||."""
    products = adapters.products.tolist()
    neighbours = {}
    for row, (task, kind) in enumerate(adapters.rows):
        if kind != "generated" or not evaluation.library.records:
            continue
        near = [
            (closeness(products[row][row], products[row][other], products[other][other]), name)
            for other, name in enumerate(evaluation.library.tasks)  # the training tasks come first among the rows
        ]
        best, name = min(near, key=lambda item: (item[0].error, item[1]))
        neighbours[task] = schema.NeighbourInfo(task=name, distance=best.error, cosine=best.cosine)
    return neighbours


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


def _vector_map(
    evaluation: EvalContext, contexts: Sequence[TaskContext], parts: Mapping[str, schema.Part]
) -> schema.Map | None:
    """Return a map of the task vectors of descriptions and of shots, each kind standardised by itself."""
    reader = evaluation.reader()
    rows: list[tuple[str, str]] = []
    blocks: list[torch.Tensor] = []
    texts = [reader.text(context.text) for context in contexts]
    demonstrated = [
        (context, reader.examples_vector(context.shots, context.task.template.kind))
        for context in contexts
        if len(context.shots) > 1
    ]
    for kind, pairs in (("text", list(zip(contexts, texts, strict=True))), ("demonstrations", demonstrated)):
        if len(pairs) < 2:
            continue
        stacked = torch.stack([vector for _, vector in pairs]).double()
        blocks.append((stacked - stacked.mean(0)) / stacked.std(0).clamp(min=1e-6))
        rows += [(context.task.name, kind) for context, _ in pairs]
    if not blocks:
        return None
    vectors = torch.cat(blocks)
    return _points(rows, parts, vectors @ vectors.T)


def oracle(evaluation: EvalContext, task: Task) -> Adapter | None:
    """Return the harvested adapter of a task; None without one.

    Raises:
        CorruptFileError: If the adapter is broken.
    """
    if task.name in evaluation.library.tasks:
        return evaluation.library.adapter(task.name)
    store = evaluation.library.store
    record = store.newest(evaluation.loaded.base, task)
    return None if record is None else read_last(store, record)


def _generator_info(evaluation: EvalContext) -> schema.GeneratorInfo | None:
    if evaluation.generator is None or evaluation.folder is None:
        return None
    manifest = evaluation.generator.manifest
    return schema.GeneratorInfo(
        name=evaluation.folder.name,
        key=manifest.key,
        arch=evaluation.generator.model.config.arch,
        tasks=tuple(sorted(seen_tasks(evaluation.generator))),
        figures={name: value for name, value in manifest.figures.items() if name != "seconds"},
        curve=tuple(_curve_row(row) for row in manifest.curve),
    )


def _curve_row(
    row: tuple[int, Mapping[str, float]] | tuple[int, float, float],
) -> tuple[int, dict[str, float]]:
    if len(row) == 3:  # written before losses had names
        return row[0], {"reconstruction": float(row[1]), "kl": float(row[2])}
    return row[0], {name: float(value) for name, value in row[1].items()}


def _storage(evaluation: EvalContext) -> schema.StorageInfo | None:
    if evaluation.folder is None or not evaluation.library.records:
        return None
    records = evaluation.library.records
    size, one = files.folder_bytes(evaluation.folder), sum(record.checkpoints[-1].bytes for record in records)
    return schema.StorageInfo(
        generator=size,
        tasks=len(records),
        all_checkpoints=sum(record.bytes for record in records),
        one_each=one,
        break_even=break_even(size, one, len(records)),
    )
