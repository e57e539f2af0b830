"""What a task file may say of where its examples are, for pairs of input and output and for plain text."""

import glob
from collections.abc import Collection, Mapping, Sequence
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

from icmlora_cli.tasks.boxes import PROMPT
from icmlora_cli.tasks.row_files import SUFFIXES, data_suffix

T = TypeVar("T")

TEXT_SUFFIX = ".txt"
BUILTIN_COUNT = 400  # examples of a built-in task by default
DRAWN_COUNT = 480  # pictures of a task of the drawn set by default
DOMAIN_COUNT = 300  # passages of a domain by default
PASSAGE = 1000  # characters of a passage by default, approximately


def not_blank(value: str) -> str:
    """Return ``value``.

    Raises:
        ValueError: If it holds nothing but white space.
    """
    if not value.strip():
        raise ValueError("is empty")
    return value


def some(value: tuple[T, ...]) -> tuple[T, ...]:
    """Return ``value``.

    Raises:
        ValueError: If it has no item.
    """
    if not value:  # min_length would not do, since pydantic counts only the items that are valid
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
    """Return the files of plain text that a task file names, sorted.

    Args:
        value: a file, a pattern such as ``books/*.txt``, or a folder, whose .txt files are taken.
        folder: the folder of the task file, where relative paths start.
    """
    path = folder / value
    if path.is_dir():
        return sorted(item for item in path.rglob(f"*{TEXT_SUFFIX}") if item.is_file())
    if path.is_file() or not glob.has_magic(value):
        return [path] if path.is_file() else []
    matches = (folder / item for item in glob.glob(value, root_dir=folder, recursive=True))  # noqa: PTH207
    return sorted(item for item in matches if item.is_file() and item.suffix.lower() == TEXT_SUFFIX)


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


def _one_of(value: str, known: Collection[str], kind: str, otherwise: str) -> str:
    """Return the value if it is known; if not, say which one is like it, or something else."""
    if value not in known:
        close = get_close_matches(value, known, n=1)
        raise ValueError(f"there is no {kind} task {value!r}; {f'did you mean {close[0]!r}?' if close else otherwise}")
    return value


def _builtin(value: str) -> str:
    from icmlora_cli.tasks.builtin import builtin_names

    return _one_of(value, builtin_names(), "built-in", "see: icmlora task builtins")


def _drawn(value: str) -> str:
    from icmlora_cli.tasks.drawn import drawn_tasks

    return _one_of(value, drawn_tasks(), "drawn", "for example star, small_star or large_star_busy")


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
    """What all parts of a task file share: they are frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ExampleSpec(Spec):
    """One example, written in the task file."""

    input: NotBlank
    output: NotBlank


class BoxSpec(Spec):
    """A labelled box in an image: left, top, right and bottom in pixels."""

    label: NotBlank
    box: tuple[float, float, float, float]


class ImageExampleSpec(Spec):
    """One example with an image, written in the task file.

    Args:
        image: the image's path, relative to the task file.
        input: what is asked about it.
        output: what is to be answered.
        boxes: labelled boxes, of which the output is made, in place of ``output``.
    """

    image: NotBlank
    input: NotBlank = PROMPT
    output: NotBlank | None = None
    boxes: Annotated[tuple[BoxSpec, ...], AfterValidator(some)] | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if (self.output is None) == (self.boxes is None):
            raise ValueError("say the answer once: output, or boxes")
        return self


class ColumnsSpec(Spec):
    """The columns of the input, the output and perhaps the image; each is a name, or a text with names in braces."""

    input: NotBlank
    output: NotBlank
    image: NotBlank | None = None


class _PairSource(Spec):
    """Rows that become pairs, by the columns that the task file names or else by a named rule; see ``row_rules``.

    Args:
        columns: the columns of the input and the output.
        input: the column of the input, in place of ``columns``.
        output: the column of the output, in place of ``columns``.
        image: the column of the image, in place of ``columns``; None where examples have no image.
    """

    columns: ColumnsSpec | None = None
    input: NotBlank | None = None
    output: NotBlank | None = None
    image: NotBlank | None = None

    @model_validator(mode="after")
    def _columns_once(self) -> Self:
        if self.columns is not None and (self.input, self.output, self.image) != (None, None, None):
            raise ValueError("say the columns once: columns, or input and output")
        return self


class FileSource(_PairSource):
    """Examples in a JSONL, JSON, CSV, TSV or Parquet file; the path is relative to the task file."""

    path: SourcePath


class DatasetSource(_PairSource):
    """Examples in a dataset of the Hugging Face hub, or in a local dataset folder.

    Args:
        dataset: the hub id, or a folder relative to the task file. Class labels become their names.
        split: the split of the dataset.
        config: the configuration of the dataset; None takes its default.
        limit: the number of rows to read at most; None reads all.
    """

    dataset: NotBlank
    split: NotBlank = "train"
    config: NotBlank | None = None
    limit: Count | None = None


class BuiltinSource(Spec):
    """Examples that a built-in task draws: its name, the number of examples, and the seed."""

    builtin: Annotated[str, AfterValidator(_builtin)]
    count: Count = BUILTIN_COUNT
    seed: Annotated[int, Field(ge=0)] = 0


class DrawnSource(Spec):
    """Pictures that a task of the drawn detection set draws: its name, the number of pictures, and the seed."""

    drawn: Annotated[str, AfterValidator(_drawn)]
    count: Count = DRAWN_COUNT
    seed: Annotated[int, Field(ge=0)] = 0


class TextSpec(Spec):
    """One passage, written in the task file."""

    text: NotBlank


class TextFileSource(Spec):
    """Plain text in .txt files, or in a column of JSONL, CSV or Parquet.

    Args:
        path: a file, a pattern, a folder of .txt files, or a list of those, relative to the task file.
        text: the key or column of the passages; it means nothing for .txt files.
        passage: the approximate number of characters of the passages into which texts are cut. None cuts .txt files
            into passages of about 1,000 characters, and takes each row of other files as one passage.
    """

    path: TextPaths
    text: NotBlank = "text"
    passage: Characters | None = None


class TextDatasetSource(Spec):
    """Plain text in a column of a dataset; empty rows are left out.

    ``DatasetSource`` and ``TextFileSource`` describe the fields.
    """

    dataset: NotBlank
    split: NotBlank = "train"
    text: NotBlank = "text"
    config: NotBlank | None = None
    limit: Count | None = None
    passage: Characters | None = None


class DomainSource(Spec):
    """Passages of a domain that icmlora knows where to find.

    Args:
        domain: the name of the domain; see ``icmlora_cli.tasks.domains``.
        count: the number of passages at most.
        passage: the approximate number of characters of a passage.
    """

    domain: Annotated[str, AfterValidator(_domain)]
    count: Count = DOMAIN_COUNT
    passage: Characters = PASSAGE


@dataclass(frozen=True)
class OfText:
    """The ``examples`` of a task with ``template: text``, before they are checked; it marks them as plain text."""

    value: object


def _unwrap(value: object) -> object:
    return value.value if isinstance(value, OfText) else value


def looks_like_text(value: object) -> bool:
    """Tell whether the ``examples`` of a task can only be meant for ``template: text``."""
    if isinstance(value, str):
        return value.lower().endswith(TEXT_SUFFIX)
    if isinstance(value, Mapping):
        return not {"text", "passage", "domain"}.isdisjoint(value) or looks_like_text(value.get("path"))
    if isinstance(value, TextFileSource | TextDatasetSource | DomainSource | TextSpec):
        return True
    return isinstance(value, Sequence) and len(value) > 0 and looks_like_text(value[0])


def looks_like_images(value: object) -> bool:
    """Tell whether the ``examples`` of a task name images."""
    if isinstance(value, Mapping):
        columns = value.get("columns")
        return "drawn" in value or "image" in value or (isinstance(columns, Mapping) and "image" in columns)
    return isinstance(value, Sequence) and not isinstance(value, str) and any(map(looks_like_images, value))


def _kind(value: object) -> str | None:
    """Return the tag of the kind of source that ``examples`` are, or None if they are of no kind."""
    text = isinstance(value, OfText)
    value = _unwrap(value)
    start = "<text " if text else "<"
    if isinstance(value, list | tuple):
        if not text and any(isinstance(item, ImageExampleSpec) or looks_like_images(item) for item in value):
            return "<images>"
        return f"{start}path>" if text and value and isinstance(value[0], str) else f"{start}inline>"
    if isinstance(value, str):
        return f"{start}path>"
    keys = (
        set(type(value).model_fields) if isinstance(value, Spec) else set(value) if isinstance(value, Mapping) else None
    )
    if keys is None:
        return None
    for key in ("dataset", *(("domain",) if text else ("builtin", "drawn"))):
        if key in keys:
            return f"{start}{key}>"
    return f"{start}file>"


_Unwrap = BeforeValidator(_unwrap)

Source = Annotated[
    Annotated[tuple[ExampleSpec, ...], AfterValidator(some), Tag("<inline>")]
    | Annotated[tuple[ImageExampleSpec, ...], AfterValidator(some), Tag("<images>")]
    | Annotated[SourcePath, Tag("<path>")]
    | Annotated[FileSource, Tag("<file>")]
    | Annotated[DatasetSource, Tag("<dataset>")]
    | Annotated[BuiltinSource, Tag("<builtin>")]
    | Annotated[DrawnSource, Tag("<drawn>")]
    | Annotated[tuple[TextSpec, ...], AfterValidator(some), _Unwrap, Tag("<text inline>")]
    | Annotated[TextPaths, _Unwrap, Tag("<text path>")]
    | Annotated[TextFileSource, _Unwrap, Tag("<text file>")]
    | Annotated[TextDatasetSource, _Unwrap, Tag("<text dataset>")]
    | Annotated[DomainSource, _Unwrap, Tag("<text domain>")],
    Discriminator(
        _kind,
        custom_error_type="examples",
        custom_error_message="should be a list of examples (each with input and output, perhaps with image, or with "
        "text where the template is text), a file's path, or a mapping with path, dataset, builtin, drawn or domain",
    ),
]
