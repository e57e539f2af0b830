"""Task files: tasks in YAML, said by people. Every fault of a file is reported at once."""

from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from icmlora_cli.config.spec_yaml import YamlDocument, faults_of, load_yaml
from icmlora_cli.errors import SpecFault
from icmlora_cli.registry.home import NAME
from icmlora_cli.registry.splits import DEFAULT_FRACTIONS

T = TypeVar("T")

SUFFIXES = (".jsonl", ".csv", ".parquet")
VERBATIM = ("input", "output", "prompt", "answer")
BUILTIN_COUNT = 400


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(
            f"{value[:120]!r} cannot be a task's name: use 1 to 100 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _some(value: tuple[T, ...]) -> tuple[T, ...]:
    if not value:  # not min_length: pydantic counts only the items that are valid
        raise ValueError("is an empty list")
    return value


def _file(value: str, info: ValidationInfo) -> str:
    if Path(value).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{value!r} is none of {', '.join(SUFFIXES)}")
    folder = info.context.get("folder") if isinstance(info.context, Mapping) else None
    if isinstance(folder, Path) and not (folder / value).is_file():
        raise ValueError(f"there is no file {value!r} (looked for at {(folder / value).absolute()})")
    return value


def _builtin(value: str) -> str:
    from icmlora_cli.registry.builtin import builtin_names

    if value not in builtin_names():
        close = get_close_matches(value, builtin_names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see: icmlora task builtins"
        raise ValueError(f"there is no built-in task {value!r}; {hint}")
    return value


Name = Annotated[str, AfterValidator(_name)]
NotBlank = Annotated[str, AfterValidator(_not_blank)]
Description = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
SourcePath = Annotated[str, AfterValidator(_file)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExampleSpec(_Spec):
    """One example, written in the task file."""

    input: NotBlank
    output: NotBlank


class FileSource(_Spec):
    """Examples in a JSONL, CSV or Parquet file.

    Args:
        path: relative to the task file.
        input: key or column of the inputs.
        output: key or column of the outputs.
    """

    path: SourcePath
    input: NotBlank = "input"
    output: NotBlank = "output"


class DatasetSource(_Spec):
    """Examples in a dataset of the Hugging Face hub, or in a local dataset folder.

    Args:
        dataset: hub id, or a folder relative to the task file.
        split: the dataset's split to take.
        input: column of the inputs.
        output: column of the outputs; a class label becomes its name.
        config: the dataset's configuration.
        limit: take this many rows at most.
    """

    dataset: NotBlank
    split: NotBlank = "train"
    input: NotBlank = "input"
    output: NotBlank = "output"
    config: NotBlank | None = None
    limit: Count | None = None


class BuiltinSource(_Spec):
    """Examples made by a built-in task."""

    builtin: Annotated[str, AfterValidator(_builtin)]
    count: Count = BUILTIN_COUNT
    seed: Annotated[int, Field(ge=0)] = 0


class TemplateSpec(_Spec):
    """How a prompt and its answer are written, in the task's own way."""

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


class SplitSpec(_Spec):
    """Shares of the examples that are kept from training."""

    validation: Fraction = DEFAULT_FRACTIONS["validation"]
    test: Fraction = DEFAULT_FRACTIONS["test"]

    @field_validator("test")
    @classmethod
    def _leaves_train(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("validation", 0.0) >= 1:
            raise ValueError("validation and test together leave nothing to train on: make their sum less than 1")
        return value


def _kind_of_source(value: object) -> str | None:
    if isinstance(value, str):
        return "<path>"
    if isinstance(value, DatasetSource) or (isinstance(value, Mapping) and "dataset" in value):
        return "<dataset>"
    if isinstance(value, BuiltinSource) or (isinstance(value, Mapping) and "builtin" in value):
        return "<builtin>"
    if isinstance(value, FileSource | Mapping):
        return "<file>"
    return "<inline>" if isinstance(value, list | tuple) else None


def _kind_of_template(value: object) -> str:
    return "<mapping>" if isinstance(value, Mapping | TemplateSpec) else "<word>"


Source = Annotated[
    Annotated[tuple[ExampleSpec, ...], AfterValidator(_some), Tag("<inline>")]
    | Annotated[SourcePath, Tag("<path>")]
    | Annotated[FileSource, Tag("<file>")]
    | Annotated[DatasetSource, Tag("<dataset>")]
    | Annotated[BuiltinSource, Tag("<builtin>")],
    Discriminator(
        _kind_of_source,
        custom_error_type="examples",
        custom_error_message="should be a list of examples (each with input and output), a file's path, "
        "or a mapping with path, dataset or builtin",
    ),
]
Template = Annotated[
    Annotated[Literal["qa", "chat"], Tag("<word>")] | Annotated[TemplateSpec, Tag("<mapping>")],
    Discriminator(_kind_of_template),
]


class TaskSpec(_Spec):
    """One task, as a task file says it.

    Args:
        name: the task's name in the registry.
        description: the task in words.
        descriptions: the same, said in several ways; the first is the main one.
        examples: where the examples are.
        template: ``qa``, ``chat`` (the base's own chat template), or a prompt and an answer.
        metric: what the task is scored by.
        split: ``unseen`` keeps the task out of the generator's training.
        splits: shares of the examples that are kept from training.
        family: a group that ``--tasks family:NAME`` selects.
        licence: of the examples.
        source: where the examples come from.
    """

    name: Name
    description: Description | None = None
    descriptions: Annotated[tuple[Description, ...], Field(validate_default=True)] = ()
    examples: Source
    template: Template = "qa"
    metric: Literal["exact_match", "nll"] = "exact_match"
    split: Literal["train", "unseen"] = "train"
    splits: SplitSpec = SplitSpec()
    family: Name | None = None
    licence: str | None = None
    source: str | None = None

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

    @property
    def texts(self) -> tuple[str, ...]:
        """All descriptions, the main one first."""
        return ((self.description,) if self.description else ()) + self.descriptions


class TaskFile(_Spec):
    """A task file with several tasks."""

    tasks: Annotated[tuple[TaskSpec, ...], AfterValidator(_some)]


def read_task_file(path: Path) -> tuple[TaskSpec, ...]:
    """Read a task file: one task at the top level, or a list of them under ``tasks``.

    Args:
        path: the YAML file; the files that it names are looked for beside it.

    Raises:
        SpecFault: lists every fault of the file with its line.
        UsageFault: if there is no such file, or it cannot be read.
    """
    document = load_yaml(path, verbatim=VERBATIM)
    value = {} if document.value is None else document.value
    several = isinstance(value, dict) and "tasks" in value
    model: type[TaskFile] | type[TaskSpec] = TaskFile if several else TaskSpec
    faults = _repeated_names(document, path)
    try:
        spec = model.model_validate(value, context={"folder": path.parent})
    except ValidationError as error:
        faults += faults_of(error, document, path, model)
    if faults:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise SpecFault(f"{path} has {count}", faults)
    return spec.tasks if isinstance(spec, TaskFile) else (spec,)


def _repeated_names(document: YamlDocument, path: Path) -> list[str]:
    tasks = document.value.get("tasks") if isinstance(document.value, dict) else None
    first: dict[str, int] = {}
    faults = []
    for index, task in enumerate(tasks if isinstance(tasks, list) else ()):
        name = task.get("name") if isinstance(task, dict) else None
        if not isinstance(name, str):
            continue
        line = document.line(("tasks", index, "name"))
        if name in first:
            faults.append(f"{path}:{line}: tasks.{index}.name: {name!r} is taken by the task on line {first[name]}")
        first.setdefault(name, line)
    return faults
