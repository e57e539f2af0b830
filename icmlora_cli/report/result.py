"""The result of an evaluation and its file, ``result.json``, from which tables and the HTML report are made.

The inputs (registry, generator, recipe, seed) decide everything in it, so that two runs on one machine write the same
file. Wall times therefore have a file of their own, ``timings.json``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.manifests.model import Items

SCHEMA: Literal["icmlora.result/2"] = "icmlora.result/2"
OLD_SCHEMA = "icmlora.result/1"  # written by 0.1.0, whose names for method and score were rung and cell
RESULT = "result.json"
Part = Literal["seen", "unseen combination", "unseen family", "unseen"]
PARTS: tuple[Part, ...] = ("seen", "unseen combination", "unseen family", "unseen")
HIGHER_IS_BETTER = {
    "exact_match": True,
    "f1": True,
    "map50_95": True,
    "map50": True,
    "map75": True,
    "nll": False,
    "perplexity": False,
    "bits_per_character": False,
}


class _ResultModel(BaseModel):
    """The base class of all parts of a result: they are frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_ResultModel):
    """A figure with its 95 % bootstrap interval.

    Args:
        value: the figure over all examples.
        low: the 2.5 % quantile over resamples.
        high: the 97.5 % quantile over resamples.
    """

    value: float
    low: float
    high: float


class Fidelity(_ResultModel):
    """How near the delta-W of an adapter is to that of the harvested adapter of its task.

    Args:
        error: the relative error ||delta-W - harvested|| / ||harvested|| in Frobenius norms.
        cosine: the cosine of both delta-W, taken as vectors.
    """

    error: float
    cosine: float


class Reconstruction(_ResultModel):
    """The fidelity of an adapter as a whole and of its parts.

    Args:
        all: the fidelity over all modules.
        by_type: the fidelity over the modules of one kind, by the last part of their names, such as ``q_proj``.
        by_layer: the fidelity over the modules of one layer, by its index in the base.
    """

    all: Fidelity
    by_type: dict[str, Fidelity]
    by_layer: dict[int, Fidelity]


def without_nothing(item: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a mapping without one of its keys, if that has no value there."""
    return {name: value for name, value in item.items() if name != key or value}


class Output(_ResultModel):
    """One test example with what the model wrote.

    Args:
        input: the example's input.
        expected: the example's output.
        output: what the model wrote.
        exact: whether that counts as an exact match.
        picture: the key of the image that the input is about in the result's ``pictures``; None without one.
    """

    input: str
    expected: str
    output: str
    exact: bool
    picture: str | None = None


class ShownPicture(_ResultModel):
    """An image as a report shows it.

    Args:
        uri: the image, made small, as a data URI.
        width: the width of the whole image in pixels.
        height: its height in pixels.
    """

    uri: str = Field(pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*$")
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class MethodInfo(_ResultModel):
    """A method of the comparison.

    Args:
        name: the method's name in tables and JSON.
        title: the method's title for people, a few words.
        uses: what the method knows of the task: ``nothing``, ``text``, ``examples`` (k shots), ``text and examples``,
            or ``training data``.
    """

    name: str
    title: str
    uses: Literal["nothing", "text", "examples", "text and examples", "training data"]


class Similar(_ResultModel):
    """The training task that is most like an unseen one.

    Args:
        task: the name of the training task.
        descriptions: the largest similarity between a description of one task and a description of the other, 0 to 1
            (words in common over all words).
        examples: the share of the unseen task's test examples that are also examples of the training task.
        duplicate: whether either figure is so large that the task should not be called unseen.
    """

    task: str
    descriptions: float
    examples: float
    duplicate: bool


class NeighbourInfo(_ResultModel):
    """The harvested training adapter nearest to a generated one: a memorisation figure.

    Args:
        task: the name of the training task whose adapter it is.
        distance: the distance ||generated - harvested|| / ||harvested|| of both delta-W; 0 is a copy.
        cosine: the cosine of both delta-W.
    """

    task: str
    distance: float
    cosine: float


class TaskInfo(_ResultModel):
    """A task of the evaluation.

    Args:
        name: the task's name in the registry.
        description: the task's main description.
        part: the part of the evaluation: seen, unseen combination (the generator learned from other tasks of its
            family), unseen family, or unseen (the task names no family).
        metric: the name of the task's main metric.
        family: the task's family; None if it names none.
        examples: how many test examples were scored.
        similar: for an unseen task, the training task that is most like it.
        neighbour: the harvested training adapter that is nearest to the task's generated one.
        swapped_with: the name of the task whose description the method ``swapped-text`` was given.
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
    """The score of one method on one task.

    Args:
        task: the task's name.
        method: the method's name.
        reason: why there are no figures; None if there are.
        figures: the figures by metric: ``exact_match`` and ``f1`` (0 to 1), ``nll`` (nats per token), ``perplexity``
            (per token), ``bits_per_character``, and the metrics that entry points add.
        reconstruction: how near the method's adapter is to the harvested one; None if either does not exist.
        unrelated: how many nats per token the method's adapter adds to the NLL of text that has nothing to do with the
            task; None where that was not measured, or where only the prompt serves the task.
        about: further facts that the method states, such as neighbours and weights, steps, or which sample was chosen.
        outputs: the first few test examples with what the model wrote.
    """

    task: str
    method: str
    reason: str | None
    figures: dict[str, Figure]
    reconstruction: Reconstruction | None
    unrelated: Figure | None = None
    about: dict[str, object]
    outputs: Items[Output]


class Mean(_ResultModel):
    """The mean of a method over those tasks of a part that it has figures for; every task has the same weight.

    Args:
        part: the part of the tasks.
        method: the method's name.
        metric: the metric's name.
        tasks: how many tasks are in the mean.
        figure: the mean; its interval comes from resampling tasks, and examples within them.
        recovered: the recovered lift (method - base) / (harvested - base) of the means over tasks that have all three;
            None if there are no such tasks, or the harvested adapters gain nothing.
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
        part: the part of the tasks.
        metric: the metric's name.
        method: the name of the first method.
        against: the name of the second method.
        tasks: how many tasks have figures of both methods.
        difference: the mean of the first method minus that of the second; every task has the same weight.
        p: the two-sided p-value, by random flips of the signs of the paired differences.
    """

    part: Part
    metric: str
    method: str
    against: str
    tasks: int
    difference: Figure
    p: float


class TextSpecific(_ResultModel):
    """How much of the generated adapters' figure is due to the right text.

    Args:
        part: the part of the tasks.
        metric: the metric's name.
        tasks: how many tasks have figures of all three methods.
        lift: the text-specific lift, generated - mean(swapped text, random text).
    """

    part: Part
    metric: str
    tasks: int
    lift: Figure


class Unrelated(_ResultModel):
    """What a method's adapters do to text that has nothing to do with their tasks.

    Args:
        part: the part of the tasks.
        method: the method's name.
        tasks: how many tasks the mean is over.
        change: the mean change of the NLL, the adapter's minus the base's, in nats per token.
    """

    part: Part
    method: str
    tasks: int
    change: Figure


class Point(_ResultModel):
    """A point of a two-dimensional PCA map.

    Args:
        task: the task's name.
        kind: what the point stands for: ``text`` or ``demonstrations`` in a map of task vectors, ``harvested`` or
            ``generated`` in a map of adapters.
        part: the part that the task belongs to.
        x: the coordinate along the first principal component.
        y: the coordinate along the second principal component.
    """

    task: str
    kind: Literal["text", "demonstrations", "harvested", "generated"]
    part: Part
    x: float
    y: float


class Map(_ResultModel):
    """A two-dimensional PCA map of task vectors or of adapters.

    Args:
        points: the points of the map.
        explained: the shares of the variance that lie along x and along y, 0 to 1.
    """

    points: Items[Point]
    explained: tuple[float, float]


class StorageInfo(_ResultModel):
    """What the generator takes on disk, and what the adapters take that it replaces.

    Args:
        generator: the size of the generator's folder, in bytes.
        tasks: how many tasks the generator learned from.
        all_checkpoints: the size of all kept checkpoints of those tasks, in bytes.
        one_each: the size of the last checkpoint of each of those tasks, in bytes.
        break_even: the number of tasks from which on the generator, at this size, is smaller than one adapter per
            task; None if that is not known.
    """

    generator: int
    tasks: int
    all_checkpoints: int
    one_each: int
    break_even: int | None


class GeneratorInfo(_ResultModel):
    """The generator that was scored.

    Args:
        name: the name of the generator's folder.
        key: the hash of all that decides the generator's training.
        arch: the architecture of its networks.
        tasks: the names of the tasks that it learned from.
        figures: the figures of its training, by name.
        curve: the losses of its training: for some steps, the number of the step and the losses by name.
    """

    name: str
    key: str
    arch: str
    tasks: Items[str]
    figures: dict[str, float]
    curve: Items[tuple[int, dict[str, float]]]


class BaseInfo(_ResultModel):
    """The base model of the evaluation.

    Args:
        name: the base's alias or id on the hub; of a folder, its name and the start of its weights' hash.
        model_id: the base's id on the hub; of a folder, as ``name``.
        revision: the commit of the hub's repository; None for a folder.
        weight_hash: the hash of the base's weights.
    """

    name: str
    model_id: str
    revision: str | None
    weight_hash: str


class ResultProvenance(_ResultModel):
    """How the result was made.

    Args:
        versions: the versions of the libraries, by name.
        command: the command line.
        device: the device on which it ran.
        dtype: the number format of the base's weights.
    """

    versions: dict[str, str]
    command: str
    device: str
    dtype: str


class Result(_ResultModel):
    """The result of an evaluation; ``icmlora eval`` makes it, and tables and reports show it.

    Args:
        schema_: the schema, ``icmlora.result/2``; the key in JSON is ``schema``.
        protocol: what all prompts say: ``bare`` (only the weights carry the task) or ``described`` (every prompt has
            the description).
        base: the base model.
        generator: the generator that was scored; None if there was none.
        recipe: the value of every setting of the evaluation.
        methods: the methods, in the order of the tables.
        tasks: the tasks, in the order of the tables.
        scores: the score of each task and method.
        means: the mean of each part, method and metric.
        comparisons: the paired tests of the generated methods against the others.
        text_specific: the text-specific lift of each part and metric.
        unrelated: the mean change of NLL on unrelated text of each part and method that has adapters.
        vectors: the map of the task vectors; None if there is none.
        adapters: the map of the delta-W of harvested and generated adapters; None if there is none.
        storage: what the generator takes on disk; None without a generator or harvested adapters.
        made: how the result was made.
        pictures: the images of the outputs, by the hash of their bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["icmlora.result/2"]
    protocol: Literal["bare", "described"]
    base: BaseInfo
    generator: GeneratorInfo | None
    recipe: dict[str, object]
    methods: Items[MethodInfo]
    tasks: Items[TaskInfo]
    scores: Items[MethodScore]
    means: Items[Mean]
    comparisons: Items[MethodComparison]
    text_specific: Items[TextSpecific]
    unrelated: Items[Unrelated] = ()
    vectors: Map | None
    adapters: Map | None
    storage: StorageInfo | None
    made: ResultProvenance
    pictures: dict[str, ShownPicture] = Field(default_factory=dict)

    def score(self, task: str, method: str) -> MethodScore:
        """Return the score of a method on a task, both given by name.

        Raises:
            KeyError: If there is no such score.
        """
        for score in self.scores:
            if score.task == task and score.method == method:
                return score
        raise KeyError((task, method))

    def as_dict(self) -> dict[str, object]:
        """Return the content of ``result.json``, in JSON's types."""
        values = self.model_dump(mode="json")
        if not self.pictures:
            del values["pictures"]
        for score in values["scores"]:
            score["outputs"] = [without_nothing(item, "picture") for item in score["outputs"]]
        return {"schema": values.pop("schema_")} | values


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json`` into a folder, in full or not at all."""
    files.write_json(folder / RESULT, result.as_dict())


def read_result(path: Path) -> Result:
    """Read a result; one that 0.1.0 wrote is read too.

    Args:
        path: the folder with the ``result.json``, or that file.

    Raises:
        NotFoundError: If there is no such file.
        CorruptFileError: If the file is broken or of another schema.
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
    """Return a result of 0.1.0 with the present names of its keys, in itself, its recipe and the items of its lists."""
    renamed = _with_new_keys(value)
    for key, items in renamed.items():
        if isinstance(items, list):
            renamed[key] = [_with_new_keys(files.as_object(entry)) or entry for entry in items]
    recipe = _with_new_keys(files.as_object(renamed.get("recipe")))
    return renamed | ({"recipe": recipe} if recipe else {})


def _with_new_keys(value: Mapping[str, object]) -> dict[str, object]:
    """Return a JSON object of 0.1.0 with the present names of its own keys."""
    return {_OLD_KEYS.get(key, key): item for key, item in value.items()}
