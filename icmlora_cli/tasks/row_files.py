"""Reading files of rows: JSONL, JSON, CSV, TSV and Parquet, with bounds on what a file may hold."""

import csv
import io
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from icmlora_cli.config.user_files import GZIP, read_text
from icmlora_cli.disk.files import is_object
from icmlora_cli.errors import IcmloraError

MAX_ROW = 1 << 24  # bytes of a line of JSONL, or of a cell of a CSV file
MAX_FAULTS = 10_000  # bad rows after which no more are read
ENOUGH = "from here on nothing was read: too many rows are wrong"
_PACKED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*_PACKED, ".parquet")
Wanted = Callable[[Sequence[str]], Collection[str]]


@dataclass
class FileRows:
    """The rows of a file.

    Args:
        rows: the place of each row (its line, or ``row 3``), and the row.
        columns: all columns, including those that were not loaded; a name that the file has twice is here twice.
        faults: the place of each fault, and what is wrong there.
    """

    rows: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def fault(self, place: str, what: str) -> bool:
        """Keep a fault, and tell whether there are too many to read on, which is kept too."""
        self.faults.append((place, what))
        if len(self.faults) < MAX_FAULTS:
            return False
        self.faults.append((place, ENOUGH))
        return True


def data_suffix(path: Path) -> str | None:
    """Return the format of a file of rows by its name, such as ``.jsonl`` for ``x.jsonl.gz``; None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [GZIP]:
        return suffixes[-2] if len(suffixes) > 1 and suffixes[-2] in _PACKED else None
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def read_rows(path: Path, wanted: Wanted) -> FileRows:
    """Read the rows of a file.

    Args:
        path: the file, whose name says the format.
        wanted: called with all columns, if there are any, and returns those that are needed; no others are kept of CSV
            and Parquet.

    Raises:
        IcmloraError: If an optional package is missing, or the file cannot be read at all.
    """
    found = FileRows()
    suffix = data_suffix(path)
    if suffix == ".parquet":
        _parquet(path, wanted, found)
        return found
    text = read_text(path)
    if suffix in (".csv", ".tsv"):
        _csv(text, "\t" if suffix == ".tsv" else ",", wanted, found)
        return found
    if suffix == ".json":
        _json(text, found)
    else:
        _jsonl(text, found)
    found.columns = list(dict.fromkeys(key for _, row in found.rows for key in row))
    if found.columns:
        wanted(found.columns)
    return found


def _jsonl(text: str, found: FileRows) -> None:
    # not splitlines(), which also splits at characters such as U+2028 that are allowed within a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.isspace():
            continue
        what = "not a JSON object"
        if len(line) > MAX_ROW:
            what = f"the line is longer than {MAX_ROW // 2**20} MiB"
        else:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                what = _not_json(error)
            else:
                if is_object(row):
                    found.rows.append((str(number), row))
                    continue
        if found.fault(str(number), what):
            break


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at character {error.pos + 1}"
    return f"not valid JSON: {'nested too deeply' if isinstance(error, RecursionError) else error}"


def _json(text: str, found: FileRows) -> None:
    """Read a list of objects, alone or under ``data``; files of JSON lines are accepted too."""
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            _jsonl(text, found)
            return
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        found.faults.append((str(line), _not_json(error)))
        return
    if is_object(value) and isinstance(value.get("data"), list):
        value = value["data"]
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        if is_object(row):
            found.rows.append((f"row {number}", row))
        elif found.fault(f"row {number}", "not a JSON object"):
            break


def _csv(text: str, delimiter: str, wanted: Wanted, found: FileRows) -> None:
    """Read the columns that are wanted; a row may be shorter than the header, and the rest is None.

    Values that are not wanted are not kept: a header of 100,000 columns above as many short rows would fill any memory.
    """
    limit = csv.field_size_limit(MAX_ROW)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        found.columns = next(reader, [])
        needed = wanted(found.columns)
        places = [(name, index) for index, name in enumerate(found.columns) if name in needed]
        for values in reader if places else ():
            width = len(values)
            if not width:
                continue
            if width <= len(found.columns):
                row: dict[str, object] = {name: values[index] if index < width else None for name, index in places}
                found.rows.append((str(reader.line_num), row))
            elif found.fault(str(reader.line_num), "more cells than columns; put cells that hold a comma in quotes"):
                break
    except csv.Error as error:
        found.faults.append((str(reader.line_num), f"not valid CSV: {error}"))
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path, wanted: Wanted, found: FileRows) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise IcmloraError(
            "reading Parquet needs pyarrow", where=str(path), hint="pip install 'icmlora[parquet]'"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        found.columns = list(file.schema_arrow.names)
        needed = [name for name in wanted(found.columns) if found.columns.count(name) == 1]
        rows = file.read(columns=needed).to_pylist() if needed else []
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        found.faults.append(("1", f"not valid Parquet: {(str(error).splitlines() or [type(error).__name__])[0]}"))
        return
    found.rows = [(f"row {number}", row) for number, row in enumerate(rows, start=1)]
