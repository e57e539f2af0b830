"""Where examples come from: the task file itself, JSONL, CSV, Parquet, datasets and built-in tasks."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, cast

from icmlora_cli.errors import IcmloraError, SpecFault
from icmlora_cli.registry.examples import Example
from icmlora_cli.registry.task_file import BuiltinSource, DatasetSource, FileSource, TaskSpec

SHOWN = 20


class _BadRow(ValueError):
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
        raise _BadRow(f"has no {key!r}; it has: {', '.join(map(repr, row)) or 'nothing'}")
    value = row[key]
    if value is None or (isinstance(value, float) and value != value):
        raise _BadRow(f"{key!r} is empty")
    if not isinstance(value, str | int | float):
        raise _BadRow(f"{key!r} is a {type(value).__name__}, not text")
    text = str(value)
    if not text.strip():
        raise _BadRow(f"{key!r} is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _BadRow(f"{key!r} is not valid Unicode: it holds half of a surrogate pair")
    return text


class _Collector:
    """Gathers examples and bad rows of one source."""

    def __init__(self, label: str, input: str, output: str) -> None:
        self.label = label
        self.keys = (input, output)
        self.examples: list[Example] = []
        self.faults: list[str] = []

    def row(self, place: str, row: Mapping[str, object]) -> None:
        try:
            self.examples.append(Example(*(_text(row, key) for key in self.keys)))
        except _BadRow as error:
            self.fault(place, str(error))

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
        SpecFault: if rows are bad (the first 20 are listed), a file cannot be read, or there is no example.
        IcmloraError: if an optional package is missing or a dataset cannot be loaded.
    """
    source = FileSource(path=spec.examples) if isinstance(spec.examples, str) else spec.examples
    if isinstance(source, BuiltinSource):
        from icmlora_cli.registry.builtin import builtin_task

        examples = list(builtin_task(source.builtin).examples(source.count, source.seed))
        faults: list[str] = []
    elif isinstance(source, FileSource):
        collected = _from_file(source, folder)
        examples, faults = collected.examples, collected.faults
    elif isinstance(source, DatasetSource):
        collected = _from_dataset(source, folder)
        examples, faults = collected.examples, collected.faults
    else:
        examples, faults = [Example(item.input, item.output) for item in source], []
    if not faults and not examples:
        faults = [f"{file}: task {spec.name}: there is not one example"]
    if faults:
        rest = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise SpecFault(
            f"the examples of task {spec.name} have {_count(faults)}", faults[:SHOWN] + rest, where=str(file)
        )
    return tuple(dict.fromkeys(examples))


def _count(faults: list[str]) -> str:
    return "one fault" if len(faults) == 1 else f"{len(faults)} faults"


def _from_file(source: FileSource, folder: Path) -> _Collector:
    path = folder / source.path
    collector = _Collector(str(path), source.input, source.output)
    read = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[path.suffix.lower()]
    try:
        read(path, collector)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        collector.fault(str(line), f"byte {error.object[error.start]:#04x} is not UTF-8")
    except OSError as error:
        collector.fault("1", f"cannot read it: {error.strerror or error}")
    return collector


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


def _from_dataset(source: DatasetSource, folder: Path) -> _Collector:
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


def _rows(table: _Table, source: DatasetSource) -> _Collector:
    collector = _Collector(source.dataset, source.input, source.output)
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
        collector.row(f"row {number}", row)
    return collector
