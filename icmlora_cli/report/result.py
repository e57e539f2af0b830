"""The result of an evaluation, as ``result.json`` holds it: one schema for tables, the HTML report and other programs.

Everything in it is decided by the inputs (registry, generator, recipe, seed), so that two runs on one machine write
the same file; wall times are beside it, in ``timings.json``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, NotFoundError

SCHEMA: Literal["icmlora.result/2"] = "icmlora.result/2"
OLD_SCHEMA = "icmlora.result/1"  # of 0.1.0, which called a method a rung and a score a cell
RESULT = "result.json"
Part = Literal["seen", "unseen combination", "unseen family", "unseen"]
PARTS: tuple[Part, ...] = ("seen", "unseen combination", "unseen family", "unseen")
HIGHER_IS_BETTER = {"exact_match": True, "f1": True, "nll": False, "perplexity": False, "bits_per_character": False}


class _ResultModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_ResultModel):
    """A figure with its 95 % bootstrap interval.

    Args:
        value: over all examples.
        low: 2.5 % quantile over resamples.
        high: 97.5 % quantile.
    """

    value: float
    low: float
    high: float


class Fidelity(_ResultModel):
    """How near an adapter is to the harvested one of its task, over delta-W.

    Args:
        error: ||delta-W - harvested|| / ||harvested||, Frobenius.
        cosine: of the two, as vectors.
    """

    error: float
    cosine: float


class Reconstruction(_ResultModel):
    """Fidelity over all modules, by the modules' last name, and by layer (index in the base's stack)."""

    all: Fidelity
    by_type: dict[str, Fidelity]
    by_layer: dict[int, Fidelity]


class Output(_ResultModel):
    """One test example with what the model wrote."""

    input: str
    expected: str
    output: str
    exact: bool


class MethodInfo(_ResultModel):
    """A method of the comparison.

    Args:
        name: in tables and JSON.
        title: for people, a few words.
        uses: what it knows of the task: ``nothing``, ``text``, ``examples`` (k shots), ``text and examples``, or
            ``training data``.
    """

    name: str
    title: str
    uses: Literal["nothing", "text", "examples", "text and examples", "training data"]


class Similar(_ResultModel):
    """The training task that is most like an unseen one.

    Args:
        task: its name.
        descriptions: largest similarity of two descriptions, 0 to 1 (words in common over all words).
        examples: share of the unseen task's test examples that are also examples of it.
        duplicate: either is so large that the task should not be called unseen.
    """

    task: str
    descriptions: float
    examples: float
    duplicate: bool


class NeighbourInfo(_ResultModel):
    """The harvested training adapter nearest to a generated one: a memorisation figure.

    Args:
        task: whose adapter it is.
        distance: ||generated - harvested|| / ||harvested||; 0 is a copy.
        cosine: of the two.
    """

    task: str
    distance: float
    cosine: float


class TaskInfo(_ResultModel):
    """A task of the evaluation.

    Args:
        name: in the registry.
        description: its main one.
        part: seen, unseen combination (its family was learned from), unseen family, or unseen (it names no family).
        metric: its main figure.
        family: its own, if any.
        examples: how many test examples were scored.
        similar: for unseen tasks, the training task most like it.
        neighbour: of the generated adapter.
        swapped_with: whose description the swapped method was given.
    """

    name: str
    description: str
    part: Part
    metric: str
    family: str | None
    examples: int
    similar: Similar | None
    neighbour: NeighbourInfo | None
    swapped_with: str | None


class MethodScore(_ResultModel):
    """One method on one task.

    Args:
        task: the task's name.
        method: the method's name.
        reason: why there is nothing; None where there is something.
        figures: metric to figure: ``exact_match`` and ``f1`` (0 to 1), ``nll`` (nats per token), ``perplexity`` (per
            token), ``bits_per_character``, and those of entry points.
        reconstruction: where the method merges an adapter and the task was harvested.
        about: what the method says of itself: neighbours and weights, steps, the sample chosen.
        outputs: the first few test examples.
    """

    task: str
    method: str
    reason: str | None
    figures: dict[str, Figure]
    reconstruction: Reconstruction | None
    about: dict[str, object]
    outputs: tuple[Output, ...]


class Mean(_ResultModel):
    """A method's mean over the tasks of a part that it has an answer for, every task counting the same.

    Args:
        part: which tasks.
        method: the method's name.
        metric: which figure.
        tasks: how many tasks are in the mean.
        figure: the mean; the interval resamples tasks, and examples within them.
        recovered: (method - base) / (harvested - base) of the means, over tasks that have all three; None where there
            are none, or the harvested adapters gain nothing.
    """

    part: Part
    method: str
    metric: str
    tasks: int
    figure: Figure
    recovered: Figure | None


class MethodComparison(_ResultModel):
    """A paired test of one method against another on the same examples.

    Args:
        part: which tasks.
        metric: which figure.
        method: the first.
        against: the second.
        tasks: how many tasks have both.
        difference: mean of first minus second, tasks counting the same.
        p: two-sided, by random flips of the paired differences' signs.
    """

    part: Part
    metric: str
    method: str
    against: str
    tasks: int
    difference: Figure
    p: float


class TextSpecific(_ResultModel):
    """How much of the generated adapters' figure is due to the right text: generated - mean(swapped, random text)."""

    part: Part
    metric: str
    tasks: int
    lift: Figure


class Point(_ResultModel):
    """A point of a two-dimensional PCA map.

    Args:
        task: the task's name.
        kind: ``text`` or ``demonstrations`` (task vectors); ``harvested`` or ``generated`` (adapters).
        part: the task's.
        x: along the first principal component.
        y: along the second.
    """

    task: str
    kind: Literal["text", "demonstrations", "harvested", "generated"]
    part: Part
    x: float
    y: float


class Map(_ResultModel):
    """A PCA map.

    Args:
        points: the points.
        explained: share of the variance along x and along y.
    """

    points: tuple[Point, ...]
    explained: tuple[float, float]


class StorageInfo(_ResultModel):
    """Bytes of the generator beside those of the adapters that it replaces.

    Args:
        generator: bytes of the generator's folder.
        tasks: tasks that it learned from.
        all_checkpoints: bytes of all kept checkpoints of those tasks.
        one_each: bytes of the last checkpoint of each.
        break_even: from how many tasks on the generator, at this size, is smaller than one adapter a task.
    """

    generator: int
    tasks: int
    all_checkpoints: int
    one_each: int
    break_even: int | None


class GeneratorInfo(_ResultModel):
    """The generator that was scored.

    Args:
        name: of its folder.
        key: what makes its training what it is.
        arch: of its networks.
        tasks: what it learned from.
        figures: of its training.
        curve: (step, name of the loss to value) of its training.
    """

    name: str
    key: str
    arch: str
    tasks: tuple[str, ...]
    figures: dict[str, float]
    curve: tuple[tuple[int, dict[str, float]], ...]


class BaseInfo(_ResultModel):
    """The base model."""

    name: str
    model_id: str
    revision: str | None
    weight_hash: str


class ResultProvenance(_ResultModel):
    """How the result was made: versions of the libraries, the command line, and where it ran."""

    versions: dict[str, str]
    command: str
    device: str
    dtype: str


class Result(_ResultModel):
    """An evaluation.

    Args:
        schema_: ``icmlora.result/2``; the key in JSON is ``schema``.
        protocol: ``bare`` (only the weights carry the task) or ``described`` (every prompt has the description).
        base: the base model.
        generator: what was scored; None without one.
        recipe: every setting.
        methods: in the table's order.
        tasks: in the table's order.
        scores: one a task and method.
        means: by part, method and metric.
        comparisons: of the generated methods with the others.
        text_specific: by part.
        vectors: map of task vectors.
        adapters: map of delta-W of harvested and generated adapters.
        storage: None without a generator or harvested adapters.
        made: how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["icmlora.result/2"]
    protocol: Literal["bare", "described"]
    base: BaseInfo
    generator: GeneratorInfo | None
    recipe: dict[str, object]
    methods: tuple[MethodInfo, ...]
    tasks: tuple[TaskInfo, ...]
    scores: tuple[MethodScore, ...]
    means: tuple[Mean, ...]
    comparisons: tuple[MethodComparison, ...]
    text_specific: tuple[TextSpecific, ...]
    vectors: Map | None
    adapters: Map | None
    storage: StorageInfo | None
    made: ResultProvenance

    def score(self, task: str, method: str) -> MethodScore:
        """Return the score of a task and a method.

        Raises:
            KeyError: if there is none.
        """
        for score in self.scores:
            if score.task == task and score.method == method:
                return score
        raise KeyError((task, method))

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        values = self.model_dump(mode="json")
        return {"schema": values.pop("schema_")} | values


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json``, whole or not at all."""
    files.write_json(folder / RESULT, result.as_dict())


def read_result(path: Path) -> Result:
    """Read a result folder's ``result.json``, or the file itself.

    Raises:
        NotFoundError: if there is none.
        CorruptFileError: if it is not of this schema.
    """
    path = path / RESULT if path.is_dir() else path
    if not path.is_file():
        raise NotFoundError(
            f"there is no {RESULT}", where=str(path.absolute()), hint="make one: icmlora eval -o RESULT/"
        )
    value = files.read_json(path)
    if value.get("schema") == OLD_SCHEMA:
        value = _renamed(value) | {"schema": SCHEMA}
    if value.get("schema") != SCHEMA:
        raise CorruptFileError(f"{path.name} says schema {value.get('schema')!r}, not {SCHEMA!r}", where=str(path))
    try:
        return Result.model_validate({"schema_": value.pop("schema")} | value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise CorruptFileError(f"{path.name} is broken at {place}: {first['msg']}", where=str(path)) from error


_OLD_KEYS = {"rung": "method", "rungs": "methods", "cells": "scores"}


def _renamed(value: Mapping[str, object]) -> dict[str, object]:
    """Return a result of 0.1.0 with today's names of its keys, which stand in it and in the items of its lists."""
    renamed = _with_new_keys(value)
    for key, items in renamed.items():
        if isinstance(items, list):
            renamed[key] = [_with_new_keys(files.as_object(entry)) or entry for entry in items]
    recipe = _with_new_keys(files.as_object(renamed.get("recipe")))
    return renamed | ({"recipe": recipe} if recipe else {})


def _with_new_keys(value: Mapping[str, object]) -> dict[str, object]:
    return {_OLD_KEYS.get(key, key): item for key, item in value.items()}
