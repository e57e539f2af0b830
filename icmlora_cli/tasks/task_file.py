"""Task files: YAML files in which users describe tasks. All faults of a file are reported at once."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from icmlora_cli.config.spec_yaml import YamlDocument, faults_of, load_yaml
from icmlora_cli.disk.files import as_object
from icmlora_cli.disk.home import NAME, NAME_RULE
from icmlora_cli.errors import SpecError
from icmlora_cli.tasks.metrics import TEXT_METRICS, checked_metric
from icmlora_cli.tasks.source_specs import (
    BUILTIN_COUNT,
    BuiltinSource,
    DatasetSource,
    DomainSource,
    DrawnSource,
    ExampleSpec,
    FileSource,
    ImageExampleSpec,
    OfText,
    Source,
    Spec,
    TextDatasetSource,
    TextFileSource,
    TextSpec,
    looks_like_images,
    looks_like_text,
    some,
)
from icmlora_cli.tasks.splits import DEFAULT_FRACTIONS

__all__ = [
    "BUILTIN_COUNT",
    "BuiltinSource",
    "DatasetSource",
    "DomainSource",
    "DrawnSource",
    "ExampleSpec",
    "FileSource",
    "ImageExampleSpec",
    "Metric",
    "Source",
    "SplitSpec",
    "TaskFile",
    "TaskSpec",
    "Template",
    "TemplateSpec",
    "TextDatasetSource",
    "TextFileSource",
    "TextSpec",
    "read_task_file",
]

# keys whose values are taken as text, as they stand in the file
VERBATIM = ("input", "output", "text", "prompt", "answer")
Metric = Annotated[str, AfterValidator(checked_metric)]


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"{value[:120]!r} cannot be a task's name: {NAME_RULE}")
    return value


Name = Annotated[str, AfterValidator(_name)]
Description = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class TemplateSpec(Spec):
    """A template of the task's own: the patterns of the prompt and of the answer."""

    prompt: str
    answer: str

    @field_validator("prompt")
    @classmethod
    def _has_input(cls, value: str) -> str:
        if "{input}" not in value:
            raise ValueError("does not contain {input}")
        return value

    @field_validator("answer")
    @classmethod
    def _has_output(cls, value: str) -> str:
        if "{output}" not in value:
            raise ValueError("does not contain {output}")
        return value


class SplitSpec(Spec):
    """The shares of the examples that are kept from training."""

    validation: Fraction = DEFAULT_FRACTIONS["validation"]
    test: Fraction = DEFAULT_FRACTIONS["test"]

    @field_validator("test")
    @classmethod
    def _leaves_train(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("validation", 0.0) >= 1:
            raise ValueError("validation and test together leave nothing to train on: make their sum less than 1")
        return value


def _kind_of_template(value: object) -> str:
    return "<mapping>" if isinstance(value, Mapping | TemplateSpec) else "<word>"


Template = Annotated[
    Annotated[Literal["qa", "chat", "text", "image"], Tag("<word>")] | Annotated[TemplateSpec, Tag("<mapping>")],
    Discriminator(_kind_of_template),
]


class TaskSpec(Spec):
    """One task, as a task file describes it.

    Args:
        name: the task's name in the registry.
        description: the task in words.
        descriptions: further descriptions of the task in other words; without ``description``, the first is the main
            one.
        template: how a prompt is made of an input: ``qa``, ``chat`` (the base model's own chat template), a prompt and
            an answer, ``text`` if the examples are passages of plain text, or ``image`` if the prompt is the input
            alone, which is what tasks have whose examples name images and that say no template.
        examples: the examples, or where they are.
        metric: the metric that scores the task, such as ``exact_match`` or ``nll``; for plain text,
            ``bits_per_character`` or ``perplexity``.
        split: ``train``, or ``unseen`` to keep the task out of the generator's training.
        splits: the shares of the examples that are kept from training.
        family: the name of a group of tasks, which ``--tasks family:NAME`` selects.
        licence: the licence of the examples; None if it is not known.
        source: where the examples come from; None if it is not known.
    """

    name: Name
    description: Description | None = None
    descriptions: Annotated[tuple[Description, ...], Field(validate_default=True)] = ()
    template: Template = "qa"  # stands before examples and metric, whose validators depend on it
    examples: Source
    metric: Metric = "exact_match"
    split: Literal["train", "unseen"] = "train"
    splits: SplitSpec = SplitSpec()
    family: Name | None = None
    licence: str | None = None
    source: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _metric_of_the_template(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("template") == "text" and "metric" not in value:
            return {**value, "metric": TEXT_METRICS[0]}
        if isinstance(value, Mapping) and "template" not in value and looks_like_images(value.get("examples")):
            return {**value, "template": "image"}
        return value

    @field_validator("descriptions")
    @classmethod
    def _some_and_distinct(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        alone = info.data.get("description")
        texts = ((alone,) if alone else ()) + value
        if not texts and "description" in info.data:
            raise ValueError("say what the task is: give a description, or a list of descriptions")
        twice = [text for text, count in Counter(texts).items() if count > 1]
        if twice:
            raise ValueError(f"the same description is given twice: {twice[0][:60]!r}")
        return value

    @field_validator("examples", mode="before")
    @classmethod
    def _of_the_template(cls, value: object, info: ValidationInfo) -> object:
        template = info.data.get("template")  # None if the template is wrong itself
        if template == "text" or (template is None and looks_like_text(value)):
            if isinstance(value, BuiltinSource) or (isinstance(value, Mapping) and "builtin" in value):
                raise ValueError("a built-in task is of questions and answers; its template cannot be text")
            return OfText(value)
        if template is not None and looks_like_text(value):
            raise ValueError("these are plain text, which needs template: text")
        return value

    @field_validator("metric")
    @classmethod
    def _goes_with_the_template(cls, value: str, info: ValidationInfo) -> str:
        template = info.data.get("template")
        if template == "text" and value not in TEXT_METRICS:
            raise ValueError(f"should be {' or '.join(map(repr, TEXT_METRICS))} with template: text, not {value!r}")
        if template not in ("text", None) and value in TEXT_METRICS:
            raise ValueError(f"{value!r} is a metric of plain text: it needs template: text")
        return value

    @property
    def texts(self) -> tuple[str, ...]:
        """All descriptions, the main one first."""
        return ((self.description,) if self.description else ()) + self.descriptions


class TaskFile(Spec):
    """A task file with several tasks."""

    tasks: Annotated[tuple[TaskSpec, ...], AfterValidator(some)]


def read_task_file(path: Path) -> tuple[TaskSpec, ...]:
    """Read a task file, which holds one task at the top level, or a list of tasks under ``tasks``.

    Args:
        path: the YAML file; relative paths in it start at its folder.

    Raises:
        SpecError: If the file has faults; every fault is listed with its line.
        UsageError: If there is no such file, or it cannot be read.
    """
    document = load_yaml(path, verbatim=VERBATIM)
    value = {} if document.value is None else document.value
    several = "tasks" in as_object(value)
    model: type[TaskFile] | type[TaskSpec] = TaskFile if several else TaskSpec
    faults = _repeated_names(document, path)
    try:
        spec = model.model_validate(value, context={"folder": path.parent})
    except ValidationError as error:
        faults += faults_of(error, document, path, model)
    if faults:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise SpecError(f"{path} has {count}", faults)
    return spec.tasks if isinstance(spec, TaskFile) else (spec,)


def _repeated_names(document: YamlDocument, path: Path) -> list[str]:
    tasks = as_object(document.value).get("tasks")
    first: dict[str, int] = {}
    faults = []
    for index, task in enumerate(tasks if isinstance(tasks, list) else ()):
        name = as_object(task).get("name")
        if not isinstance(name, str):
            continue
        line = document.line(("tasks", index, "name"))
        if name in first:
            faults.append(f"{path}:{line}: tasks.{index}.name: {name!r} is taken by the task on line {first[name]}")
        first.setdefault(name, line)
    return faults
