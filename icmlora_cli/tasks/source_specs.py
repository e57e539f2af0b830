"""Where a task file says that its examples are: what is accepted of pairs, and of plain text."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from icmlora_cli.tasks.row_files import SUFFIXES, data_suffix

T = TypeVar("T")

TEXT_SUFFIX = ".txt"
BUILTIN_COUNT = 400
DOMAIN_COUNT = 300
PASSAGE = 1000


def not_blank(value: str) -> str:
    """Return ``value``; ValueError if there is nothing in it but white space."""
    if not value.strip():
        raise ValueError("is empty")
    return value


def some(value: tuple[T, ...]) -> tuple[T, ...]:
    """Return ``value``; ValueError if it has no item."""
    if not value:  # not min_length: pydantic counts only the items that are valid
        raise ValueError("is an empty list")
    return value


def _folder(info: ValidationInfo) -> Path | None:
    folder = info.context.get("folder") if isinstance(info.context, Mapping) else None
    return folder if isinstance(folder, Path) else None


def _file(value: str, info: ValidationInfo) -> str:
    if data_suffix(Path(value)) is None:
        raise ValueError(f"{value!r} is none of {', '.join(SUFFIXES)}")
    folder = _folder(info)
    if folder is not None and not (folder / value).is_file():
        raise ValueError(f"there is no file {value!r} (looked for at {(folder / value).absolute()})")
    return value


def text_files(value: str, folder: Path) -> list[Path]:
    """Return the files of a path, of a pattern such as ``books/*.txt``, or the .txt files in a folder, sorted."""
    path = folder / value
    if path.is_dir():
        return sorted(item for item in path.rglob(f"*{TEXT_SUFFIX}") if item.is_file())
    if path.is_file() or not glob.has_magic(value):
        return [path] if path.is_file() else []
    found = (folder / item for item in glob.glob(value, root_dir=folder, recursive=True))  # noqa: PTH207
    return sorted(item for item in found if item.is_file() and item.suffix.lower() == TEXT_SUFFIX)


def _text_path(value: str, info: ValidationInfo) -> str:
    folder, known = _folder(info), (TEXT_SUFFIX, *SUFFIXES)
    if folder is None:
        return value
    is_folder = (folder / value).is_dir()
    is_known = Path(value).suffix.lower() == TEXT_SUFFIX or data_suffix(Path(value)) is not None
    if not is_folder and not glob.has_magic(value) and not is_known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}, nor a folder of {TEXT_SUFFIX} files")
    if not text_files(value, folder):
        what = f"there is no {TEXT_SUFFIX} file in {value!r}" if is_folder else f"there is no file {value!r}"
        raise ValueError(f"{what} (looked for at {(folder / value).absolute()})")
    return value


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _builtin(value: str) -> str:
    from icmlora_cli.tasks.builtin import builtin_names

    if value not in builtin_names():
        close = get_close_matches(value, builtin_names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see: icmlora task builtins"
        raise ValueError(f"there is no built-in task {value!r}; {hint}")
    return value


def _domain(value: str) -> str:
    from icmlora_cli.tasks.domains import domain_names

    if value not in domain_names():
        raise ValueError(f"there is no domain {value!r}; the domains are: {', '.join(domain_names())}")
    return value


NotBlank = Annotated[str, AfterValidator(not_blank)]
SourcePath = Annotated[str, AfterValidator(_file)]
TextPath = Annotated[str, AfterValidator(_text_path)]
TextPaths = Annotated[tuple[TextPath, ...], BeforeValidator(_listed), AfterValidator(some)]
Count = Annotated[int, Field(ge=1)]
Characters = Annotated[int, Field(ge=100, le=100_000)]


class Spec(BaseModel):
    """What all parts of a task file share: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ExampleSpec(Spec):
    """One example, written in the task file."""

    input: NotBlank
    output: NotBlank


class ColumnsSpec(Spec):
    """Which columns are the input and the output: a name, or a text with names in braces."""

    input: NotBlank
    output: NotBlank


class _PairSource(Spec):
    """Rows that become pairs: by the columns that are said, else by the rule that knows the columns.

    Args:
        columns: what is the input and the output.
        input: the same, of the input alone.
        output: the same, of the output alone.
    """

    columns: ColumnsSpec | None = None
    input: NotBlank | None = None
    output: NotBlank | None = None

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if self.columns is not None and (self.input, self.output) != (None, None):
            raise ValueError("say the columns once: columns, or input and output")
        return self


class FileSource(_PairSource):
    """Examples in a JSONL, JSON, CSV, TSV or Parquet file; the path is relative to the task file."""

    path: SourcePath


class DatasetSource(_PairSource):
    """Examples in a dataset of the Hugging Face hub, or in a local dataset folder.

    Args:
        dataset: hub id, or a folder relative to the task file.
        split: the dataset's split to take; a class label becomes its name.
        config: the dataset's configuration.
        limit: take this many rows at most.
    """

    dataset: NotBlank
    split: NotBlank = "train"
    config: NotBlank | None = None
    limit: Count | None = None


class BuiltinSource(Spec):
    """Examples made by a built-in task."""

    builtin: Annotated[str, AfterValidator(_builtin)]
    count: Count = BUILTIN_COUNT
    seed: Annotated[int, Field(ge=0)] = 0


class TextSpec(Spec):
    """One passage, written in the task file."""

    text: NotBlank


class TextFileSource(Spec):
    """Plain text in .txt files, or in a column of JSONL, CSV or Parquet.

    Args:
        path: relative to the task file: a file, a pattern, a folder of .txt files, or a list of those.
        text: key or column of the passages; .txt files have none.
        passage: cut into passages of about so many characters, at paragraph ends. None cuts .txt files into passages
            of about 1,000 characters, and leaves a row of the others one passage.
    """

    path: TextPaths
    text: NotBlank = "text"
    passage: Characters | None = None


class TextDatasetSource(Spec):
    """Plain text in a column of a dataset; see ``DatasetSource`` and ``TextFileSource``. Empty rows are passed over."""

    dataset: NotBlank
    split: NotBlank = "train"
    text: NotBlank = "text"
    config: NotBlank | None = None
    limit: Count | None = None
    passage: Characters | None = None


class DomainSource(Spec):
    """Passages of a domain that icmlora knows where to find.

    Args:
        domain: its name; see ``icmlora_cli.tasks.domains``.
        count: passages at most.
        passage: characters of a passage, about.
    """

    domain: Annotated[str, AfterValidator(_domain)]
    count: Count = DOMAIN_COUNT
    passage: Characters = PASSAGE


@dataclass(frozen=True)
class OfText:
    """The ``examples`` of a task with ``template: text``, not checked yet."""

    value: object


def _unwrap(value: object) -> object:
    return value.value if isinstance(value, OfText) else value


def looks_like_text(value: object) -> bool:
    """Tell whether ``examples`` are written as those of a task with ``template: text``."""
    if isinstance(value, str):
        return value.lower().endswith(TEXT_SUFFIX)
    if isinstance(value, Mapping):
        return not {"text", "passage", "domain"}.isdisjoint(value) or looks_like_text(value.get("path"))
    if isinstance(value, TextFileSource | TextDatasetSource | DomainSource | TextSpec):
        return True
    return isinstance(value, Sequence) and len(value) > 0 and looks_like_text(value[0])


def _kind(value: object) -> str | None:
    text = isinstance(value, OfText)
    value = _unwrap(value)
    start = "<text " if text else "<"
    if isinstance(value, list | tuple):
        return f"{start}path>" if text and value and isinstance(value[0], str) else f"{start}inline>"
    if isinstance(value, str):
        return f"{start}path>"
    keys = (
        set(type(value).model_fields) if isinstance(value, Spec) else set(value) if isinstance(value, Mapping) else None
    )
    if keys is None:
        return None
    for key in ("dataset", "domain" if text else "builtin"):
        if key in keys:
            return f"{start}{key}>"
    return f"{start}file>"


_Unwrap = BeforeValidator(_unwrap)

Source = Annotated[
    Annotated[tuple[ExampleSpec, ...], AfterValidator(some), Tag("<inline>")]
    | Annotated[SourcePath, Tag("<path>")]
    | Annotated[FileSource, Tag("<file>")]
    | Annotated[DatasetSource, Tag("<dataset>")]
    | Annotated[BuiltinSource, Tag("<builtin>")]
    | Annotated[tuple[TextSpec, ...], AfterValidator(some), _Unwrap, Tag("<text inline>")]
    | Annotated[TextPaths, _Unwrap, Tag("<text path>")]
    | Annotated[TextFileSource, _Unwrap, Tag("<text file>")]
    | Annotated[TextDatasetSource, _Unwrap, Tag("<text dataset>")]
    | Annotated[DomainSource, _Unwrap, Tag("<text domain>")],
    Discriminator(
        _kind,
        custom_error_type="examples",
        custom_error_message="should be a list of examples (each with input and output, or with text where the "
        "template is text), a file's path, or a mapping with path, dataset, builtin or domain",
    ),
]
