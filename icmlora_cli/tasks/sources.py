"""Where examples come from: the task file itself, JSONL, CSV, Parquet, plain text, datasets and built-in tasks."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, cast

from icmlora_cli.errors import IcmloraError, SpecError, UsageError
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.passages import cut
from icmlora_cli.tasks.source_specs import (
    PASSAGE,
    SUFFIXES,
    TEXT_SUFFIX,
    BuiltinSource,
    DatasetSource,
    DomainSource,
    ExampleSpec,
    FileSource,
    TextDatasetSource,
    TextFileSource,
    TextSpec,
    text_files,
)
from icmlora_cli.tasks.task_file import TaskSpec


class _BadRowError(ValueError):
    """A row that is no example; its text says why."""


class _Table(Protocol):
    """The part of ``datasets.Dataset`` that is used here."""

    column_names: list[str]
    features: Mapping[str, object]

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict[str, object]]: ...
    def select(self, indices: range) -> "_Table": ...


def _text(row: Mapping[str, object], key: str) -> str:
    if key not in row:
        raise _BadRowError(f"has no {key!r}; it has: {', '.join(map(repr, row)) or 'nothing'}")
    value = row[key]
    if value is None or (isinstance(value, float) and value != value):
        raise _BadRowError(f"{key!r} is empty")
    if not isinstance(value, str | int | float):
        raise _BadRowError(f"{key!r} is a {type(value).__name__}, not text")
    text = str(value)
    if not text.strip():
        raise _BadRowError(f"{key!r} is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _BadRowError(f"{key!r} is not valid Unicode: it holds half of a surrogate pair")
    return text


class _Collector:
    """Gathers examples and bad rows of one source.

    Args:
        label: the source, in messages.
        keys: of the inputs and the outputs; or one, of plain text.
        passage: cut plain text into passages of about so many characters; None leaves each text one.
    """

    def __init__(self, label: str, keys: tuple[str, ...], passage: int | None = None) -> None:
        self.label = label
        self.keys = keys
        self.passage = passage
        self.examples: list[Example] = []
        self.faults: list[str] = []

    def row(self, place: str, row: Mapping[str, object]) -> None:
        try:
            values = [_text(row, key) for key in self.keys]
        except _BadRowError as error:
            self.fault(place, str(error))
            return
        if len(values) == 2:
            self.examples.append(Example(*values))
        else:
            self.text(values[0])

    def text(self, text: str) -> None:
        passages = [text] if self.passage is None else cut(text, self.passage)
        self.examples += [Example("", passage) for passage in passages]

    def take(self, other: "_Collector") -> None:
        self.examples += other.examples
        self.faults += other.faults

    def fault(self, place: str, what: str) -> None:
        self.faults.append(f"{self.label}:{place}: {what}")

    def need(self, columns: Iterable[str]) -> bool:
        columns = list(columns)
        for key in dict.fromkeys(self.keys):
            if columns.count(key) != 1:
                problem = "there is no column" if key not in columns else "there are several columns"
                self.fault("1", f"{problem} {key!r}; the columns are: {', '.join(columns) or 'none'}")
        return not self.faults


def load_examples(spec: TaskSpec, folder: Path, file: Path) -> tuple[Example, ...]:
    """Read a task's examples, in their order, each once.

    Args:
        spec: the task.
        folder: relative paths start here.
        file: the task file, for messages.

    Raises:
        SpecError: if rows are bad (the first 20 are listed), a file cannot be read, or there is no example.
        IcmloraError: if an optional package is missing, or a dataset or a domain cannot be loaded.
    """
    examples, faults = _collected(spec, folder)
    if not faults and not examples:
        faults = [f"{file}: task {spec.name}: there is not one example"]
    if faults:
        raise SpecError.counted(f"the examples of task {spec.name} have", faults, where=str(file))
    return tuple(dict.fromkeys(examples))


def read_examples(path: Path, *, text: bool = False) -> tuple[Example, ...]:
    """Read the examples of a file that no task file names, in their order, each once.

    Args:
        path: JSONL, CSV or Parquet with ``input`` and ``output``.
        text: they are passages of plain text: a .txt file, or JSONL, CSV or Parquet with ``text``.

    Raises:
        UsageError: if there is no such file, or it is of another format.
        SpecError: if rows are bad (the first 20 are listed), the file cannot be read, or there is no example.
        IcmloraError: if an optional package is missing.
    """
    where, known = str(path.absolute()), (TEXT_SUFFIX, *SUFFIXES) if text else SUFFIXES
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}", where=where, hint="check the path")
    if path.suffix.lower() not in known:
        plain = not text and path.suffix.lower() == TEXT_SUFFIX
        hint = "plain text needs --template text" if plain else f"write the examples as {' or '.join(known)}"
        raise UsageError(f"{path.name!r} is none of {', '.join(known)}", where=where, hint=hint)
    found = _from_file(path, ("text",) if text else ("input", "output"))
    if not found.faults and not found.examples:
        found.fault("1", "there is not one example")
    if found.faults:
        raise SpecError.counted(f"{path} has", found.faults, where=str(path))
    return tuple(dict.fromkeys(found.examples))


def _collected(spec: TaskSpec, folder: Path) -> tuple[list[Example], list[str]]:
    source = spec.examples
    if isinstance(source, BuiltinSource):
        from icmlora_cli.tasks.builtin import builtin_task

        return list(builtin_task(source.builtin).examples(source.count, source.seed)), []
    if isinstance(source, DomainSource):
        from icmlora_cli.tasks.domains import domain_passages

        return [Example("", text) for text in domain_passages(source.domain, source.count, source.passage)], []
    if isinstance(source, str):
        source = FileSource(path=source)
    if isinstance(source, FileSource):
        collector = _from_file(folder / source.path, (source.input, source.output))
    elif isinstance(source, DatasetSource | TextDatasetSource):
        collector = _from_dataset(source, folder)
    elif isinstance(source, TextFileSource):
        collector = _from_texts(source, folder)
    else:
        paths = tuple(item for item in source if isinstance(item, str))
        if paths:
            collector = _from_texts(TextFileSource(path=paths), folder)
        else:
            return [_inline(item) for item in source if not isinstance(item, str)], []
    return collector.examples, collector.faults


def _inline(item: ExampleSpec | TextSpec) -> Example:
    return Example("", item.text) if isinstance(item, TextSpec) else Example(item.input, item.output)


def _from_texts(source: TextFileSource, folder: Path) -> _Collector:
    whole = _Collector("", (source.text,))
    paths = dict.fromkeys(path for name in source.path for path in text_files(name, folder))
    for path in paths:
        whole.take(_from_file(path, (source.text,), source.passage))
    return whole


def _from_file(path: Path, keys: tuple[str, ...], passage: int | None = None) -> _Collector:
    plain = path.suffix.lower() not in SUFFIXES
    collector = _Collector(str(path), keys, passage or PASSAGE if plain else passage)
    read = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower(), _plain)
    try:
        read(path, collector)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        collector.fault(str(line), f"byte {error.object[error.start]:#04x} is not UTF-8")
    except OSError as error:
        collector.fault("1", f"cannot read it: {error.strerror or error}")
    return collector


def _plain(path: Path, collector: _Collector) -> None:
    collector.text(path.read_bytes().decode("utf-8-sig"))


def _jsonl(path: Path, collector: _Collector) -> None:
    # not splitlines(): U+2028 and its like are allowed within a JSON string
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            collector.fault(str(number), f"not valid JSON: {error}")
            continue
        if isinstance(row, dict):
            collector.row(str(number), row)
        else:
            collector.fault(str(number), "not a JSON object")


def _csv(path: Path, collector: _Collector) -> None:
    text = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    reader = csv.DictReader(text, restkey="", strict=True)
    try:
        if not collector.need(reader.fieldnames or ()):
            return
        for row in reader:
            if "" in row:
                collector.fault(str(reader.line_num), "more cells than columns; put cells that hold a comma in quotes")
            else:
                collector.row(str(reader.line_num), row)
    except csv.Error as error:
        collector.fault(str(reader.line_num), f"not valid CSV: {error}")


def _parquet(path: Path, collector: _Collector) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise IcmloraError(
            "reading Parquet needs pyarrow", where=str(path), hint="pip install 'icmlora[parquet]'"
        ) from error
    try:
        names = pyarrow.parquet.read_schema(path).names
        if not collector.need(names):
            return
        table = pyarrow.parquet.read_table(path, columns=list(dict.fromkeys(collector.keys)))
    except pyarrow.ArrowException as error:
        collector.fault("1", f"not valid Parquet: {str(error).splitlines()[0]}")
        return
    for number, row in enumerate(table.to_pylist(), start=1):
        collector.row(f"row {number}", row)


def _from_dataset(source: DatasetSource | TextDatasetSource, folder: Path) -> _Collector:
    try:
        import datasets
    except ImportError as error:
        raise IcmloraError(
            "reading a dataset needs the datasets package",
            where=source.dataset,
            hint="pip install 'icmlora[datasets]'",
        ) from error
    local = folder / source.dataset
    datasets.disable_progress_bars()
    try:
        if (local / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(str(local))[source.split]
        elif (local / "state.json").is_file():
            table = datasets.load_from_disk(str(local))
        else:
            name = str(local) if local.is_dir() else source.dataset
            table = datasets.load_dataset(name, name=source.config, split=source.split)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise IcmloraError(
            f"cannot load dataset {source.dataset!r}, split {source.split!r}: {str(error).split(chr(10))[0]}",
            where=str(local) if local.is_dir() else source.dataset,
            hint="check id, split and config; without a network only the hub's cache can be read",
        ) from error
    return _rows(cast(_Table, table), source)


def _rows(table: _Table, source: DatasetSource | TextDatasetSource) -> _Collector:
    if isinstance(source, TextDatasetSource):
        collector = _Collector(source.dataset, (source.text,), source.passage)
    else:
        collector = _Collector(source.dataset, (source.input, source.output))
    if not collector.need(table.column_names):
        return collector
    if source.limit is not None:
        table = table.select(range(min(source.limit, len(table))))
    labels = {key: getattr(table.features[key], "names", None) for key in collector.keys}
    for number, row in enumerate(table, start=1):
        for key, names in labels.items():
            value = row[key]
            if names and isinstance(value, int) and 0 <= value < len(names):
                row[key] = names[value]
        if isinstance(source, TextDatasetSource) and not str(row[source.text] or "").strip():
            continue  # collections of plain text have empty rows between paragraphs
        collector.row(f"row {number}", row)
    return collector
