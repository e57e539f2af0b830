"""Reading examples from the task file itself, files of rows, plain text, datasets and built-in tasks."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from icmlora_cli.config.user_files import no_collector, read_text
from icmlora_cli.errors import IcmloraError, SpecError, UsageError
from icmlora_cli.tasks.boxes import Box, boxes_text, checked_box
from icmlora_cli.tasks.conversations import BadRowError, Unread
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.passages import cut
from icmlora_cli.tasks.pictures import picture_of
from icmlora_cli.tasks.row_files import ENOUGH, MAX_FAULTS, SUFFIXES, FileRows, data_suffix, read_rows
from icmlora_cli.tasks.row_rules import RULES, RowRule, columns_rule, rule_of, text_rule
from icmlora_cli.tasks.source_specs import (
    PASSAGE,
    TEXT_SUFFIX,
    BuiltinSource,
    DatasetSource,
    DomainSource,
    DrawnSource,
    ExampleSpec,
    FileSource,
    ImageExampleSpec,
    TextDatasetSource,
    TextFileSource,
    TextSpec,
    text_files,
)
from icmlora_cli.tasks.task_file import TaskSpec

NAMED = 20  # columns that a message names at most
FIRST_ROWS = 3  # places that are listed for equal faults
COLUMNS_HINT = "say which columns: examples: {path: FILE, columns: {input: QUESTION, output: ANSWER}}"


class _Table(Protocol):
    """The part of ``datasets.Dataset`` that is used here."""

    column_names: list[str]
    features: Mapping[str, Any]

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict[str, object]]: ...
    def select(self, indices: range) -> "_Table": ...
    def cast_column(self, column: str, feature: object) -> "_Table": ...


@dataclass(frozen=True)
class SourceExamples:
    """The examples of a source, and how they were read.

    Args:
        examples: the examples in the order of the source, without repetitions.
        rule: the name of the rule by which rows became examples; None if there were no rows.
        not_read: the columns and keys of the rows that no example holds, in printable form.
        notes: lines on what else was not read.
    """

    examples: tuple[Example, ...]
    rule: str | None = None
    not_read: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def told(self) -> tuple[str, ...]:
        """Return lines that say by which rule rows were read and what was not read; none if there is nothing to say."""
        lines = []
        if self.rule not in (None, "input-output", "text", "columns"):
            lines.append(f"read as {self.rule}")
        if self.not_read:
            rest = f" and {len(self.not_read) - NAMED} more" if len(self.not_read) > NAMED else ""
            lines.append(f"not read: {', '.join(self.not_read[:NAMED])}{rest}")
        return (*lines, *self.notes)


def _printable(column: str) -> str:
    if not column:
        return "the column without a name"
    return column if column.isprintable() and len(column) <= 60 else repr(column[:60])


class _Collector:
    """Gathers the examples and the faults of one source.

    Args:
        label: the name of the source in messages.
        rule: the rule by which rows become examples; None takes the first rule that can read the columns.
        passage: the approximate number of characters of the passages into which plain text is cut; None takes each text
            as one passage.
        folder: the folder where the paths of images start.
    """

    def __init__(self, label: str, rule: RowRule | None, passage: int | None = None, folder: Path = Path()) -> None:
        self.label = label
        self.folder = folder
        self.rule = rule
        self.passage = passage
        self.unread = Unread()
        self.examples: list[Example] = []
        self._faults: dict[tuple[str, str], list[str]] = {}
        self._bad = 0

    @property
    def faults(self) -> list[str]:
        """One line for each kind of fault, with the first rows that have it."""
        return [_fault_line(label, what, places) for (label, what), places in self._faults.items()]

    def row(self, place: str, row: Mapping[str, object]) -> bool:
        """Make an example of a row, and tell whether to go on: after too many bad rows there is no use in it."""
        assert self.rule is not None
        try:
            example = self._example(self.rule, row)
        except BadRowError as error:
            self.fault(place, str(error))
            self._bad += 1
            if self._bad == MAX_FAULTS:
                self.fault(place, ENOUGH)
            return self._bad < MAX_FAULTS
        if example.input:
            self.examples.append(example)
        else:
            self.text(example.output)
        return True

    def _example(self, rule: RowRule, row: Mapping[str, object]) -> Example:
        input, output = rule.pair(row, self.unread)
        if rule.image is None:
            return Example(input, output)
        picture, size = picture_of(row.get(rule.image), self.folder)
        if rule.boxes is not None:
            output = _boxes(row.get(rule.boxes), size)
        return Example(input, output, picture=picture)

    def text(self, text: str) -> None:
        passages = [text] if self.passage is None else cut(text, self.passage)
        self.examples += [Example("", passage) for passage in passages]

    def take(self, other: "_Collector") -> None:
        self.examples += other.examples
        for key, places in other._faults.items():
            self._faults.setdefault(key, []).extend(places)
        self.unread.fields |= other.unread.fields

    def fault(self, place: str, what: str) -> None:
        self._faults.setdefault((self.label, what), []).append(place)

    def choose(self, columns: Sequence[str]) -> Collection[str]:
        """Choose the rule for a file's columns, note which columns it does not read, and return those that it reads."""
        self.rule = self.rule or rule_of(columns)
        if self.rule is None:
            names = ", ".join(map(_printable, columns[:NAMED])) or "none"
            rules = "; ".join(" and ".join(rule.columns) for rule in RULES)
            self.fault("1", f"no rule reads its columns, which are: {names}; known are: {rules}")
            return ()
        for key in self.rule.columns:
            if columns.count(key) != 1:
                problem = "there is no column" if key not in columns else "there are several columns"
                named = ", ".join(map(_printable, columns[:NAMED])) or "none"
                self.fault("1", f"{problem} {key!r}; the columns are: {named}")
        self.unread.fields = {name: None for name in columns if name not in self.rule.reads} | self.unread.fields
        return [name for name in dict.fromkeys(columns) if name in self.rule.reads]

    def result(self) -> SourceExamples:
        """Return the examples that were gathered, and how they were read."""
        count = self.unread.after_answer
        notes = (f"not read: what follows the last answer, in {count} conversations",) if count else ()
        rule = None if self.rule is None else self.rule.name
        return SourceExamples(
            tuple(dict.fromkeys(self.examples)), rule, tuple(map(_printable, self.unread.fields)), notes
        )


def _fault_line(label: str, what: str, places: Sequence[str]) -> str:
    if len(places) == 1:
        return f"{label}:{places[0]}: {what}"
    first = ", ".join(place.removeprefix("row ") for place in places[:FIRST_ROWS])
    more = ", ..." if len(places) > FIRST_ROWS else ""
    return f"{label}:{places[0]}: {what} ({len(places):,} rows: {first}{more})"


def load_examples(spec: TaskSpec, folder: Path, file: Path) -> SourceExamples:
    """Read a task's examples.

    Args:
        spec: the task, as the task file says it.
        folder: the folder where relative paths start.
        file: the task file, for messages.

    Raises:
        SpecError: If rows are bad (the first 20 kinds of fault are listed), a file cannot be read, or there is no
            example.
        IcmloraError: If an optional package is missing, or a dataset or a domain cannot be loaded.
    """
    source = _collected(spec, folder, file)
    if isinstance(source, _Collector):
        if source.faults:
            what = f"the examples of task {spec.name} have"
            advice = None if source.rule or not isinstance(spec.examples, str | FileSource) else COLUMNS_HINT
            raise SpecError.counted(what, source.faults, where=str(file), hint=advice)
        source = source.result()
    if not source.examples:
        faults = [f"{file}: task {spec.name}: there is not one example"]
        raise SpecError.counted(f"the examples of task {spec.name} have", faults, where=str(file))
    return source


def read_examples(path: Path, *, text: bool = False) -> SourceExamples:
    """Read the examples of a file that no task file names.

    Args:
        path: a JSONL, JSON, CSV, TSV or Parquet file, whose columns are read by a named rule (see ``row_rules``).
        text: whether the examples are passages of plain text, in a .txt file or in the column ``text``.

    Raises:
        UsageError: If there is no such file, or it is of another format.
        SpecError: If rows are bad (the first 20 kinds of fault are listed), the file cannot be read, or there is no
            example.
        IcmloraError: If an optional package is missing.
    """
    where, known = str(path.absolute()), (TEXT_SUFFIX, *SUFFIXES) if text else SUFFIXES
    if not path.is_file():
        special = path.exists() and not path.is_dir()
        what = f"{str(path)!r} is no regular file" if special else f"there is no file {str(path)!r}"
        raise UsageError(what, where=where, hint="check the path")
    plain = path.suffix.lower() == TEXT_SUFFIX
    if data_suffix(path) is None and not (text and plain):
        hint = "plain text needs --template text" if plain else f"write the examples as {' or '.join(known)}"
        raise UsageError(f"{path.name!r} is none of {', '.join(known)}", where=where, hint=hint)
    collector = _from_file(path, text_rule("text") if text else None)
    if not collector.faults and not collector.examples:
        collector.fault("1", "there is not one example")
    if collector.faults:
        advice = None if collector.rule else "name the columns input and output"
        raise SpecError.counted(f"{path} has", collector.faults, where=str(path), hint=advice)
    return collector.result()


def _collected(spec: TaskSpec, folder: Path, file: Path) -> "SourceExamples | _Collector":
    """Read the source of a task; a source that can have faults is returned as its collector."""
    source = spec.examples
    if isinstance(source, BuiltinSource):
        from icmlora_cli.tasks.builtin import builtin_task

        return SourceExamples(tuple(dict.fromkeys(builtin_task(source.builtin).examples(source.count, source.seed))))
    if isinstance(source, DrawnSource):
        from icmlora_cli.tasks.drawn import drawn_tasks

        return SourceExamples(tuple(drawn_tasks()[source.drawn].examples(source.count, source.seed)))
    if isinstance(source, DomainSource):
        from icmlora_cli.tasks.domains import domain_passages

        passages = domain_passages(source.domain, source.count, source.passage)
        return SourceExamples(tuple(Example("", text) for text in dict.fromkeys(passages)))
    if isinstance(source, str):
        source = FileSource(path=source)
    if isinstance(source, FileSource):
        return _from_file(folder / source.path, _rule_in_spec(source))
    if isinstance(source, DatasetSource | TextDatasetSource):
        return _from_dataset(source, folder)
    if isinstance(source, TextFileSource):
        return _from_texts(source, folder)
    paths = tuple(item for item in source if isinstance(item, str))
    if paths:
        return _from_texts(TextFileSource(path=paths), folder)
    images = tuple(item for item in source if isinstance(item, ImageExampleSpec))
    if images:
        return _with_images(images, folder, file)
    inline = (_inline(item) for item in source if isinstance(item, ExampleSpec | TextSpec))
    return SourceExamples(tuple(dict.fromkeys(inline)))


def _boxes(value: object, size: tuple[int, int]) -> str:
    """Return the text of a row's boxes.

    Raises:
        BadRowError: If they are no list of boxes within the image; the message has all that is wrong.
    """
    if not isinstance(value, list | tuple) or not value:
        raise BadRowError("'boxes' is not a list of mappings, each with label and box")
    boxes, wrong = list[Box](), list[str]()
    for item in value:
        try:
            boxes.append(checked_box(item, size))
        except BadRowError as error:
            wrong.append(str(error))
    if wrong:
        raise BadRowError("; ".join(wrong))
    return boxes_text(boxes, size)


def _with_images(items: Sequence[ImageExampleSpec], folder: Path, file: Path) -> _Collector:
    """Read examples that a task file holds, with their images."""
    collector = _Collector(str(file), None, folder=folder)
    for number, item in enumerate(items, start=1):
        rule = next(rule for rule in RULES if rule.image and (rule.boxes is not None) == (item.boxes is not None))
        collector.rule = rule
        collector.row(f"example {number} ({item.image})", item.model_dump(exclude_none=True))
    collector.rule = None  # it is no file with columns
    return collector


def _rule_in_spec(source: FileSource | DatasetSource) -> RowRule | None:
    """Return the rule of the columns that a task file names; None if it names none."""
    if source.columns is not None:
        return columns_rule(source.columns.input, source.columns.output, source.columns.image)
    if (source.input, source.output, source.image) == (None, None, None):
        return None
    return columns_rule(source.input or "input", source.output or "output", source.image)


def _inline(item: ExampleSpec | TextSpec) -> Example:
    return Example("", item.text) if isinstance(item, TextSpec) else Example(item.input, item.output)


def _from_texts(source: TextFileSource, folder: Path) -> _Collector:
    whole = _Collector("", text_rule(source.text))
    paths = dict.fromkeys(path for name in source.path for path in text_files(name, folder))
    for path in paths:
        whole.take(_from_file(path, text_rule(source.text), source.passage))
    return whole


def _from_file(path: Path, rule: RowRule | None, passage: int | None = None) -> _Collector:
    plain = data_suffix(path) is None
    collector = _Collector(str(path), rule, passage or PASSAGE if plain else passage, path.parent)
    try:
        if plain:
            collector.text(read_text(path))
            return collector
        with no_collector():
            contents = read_rows(path, collector.choose)
    except SpecError as error:
        for fault in error.faults:
            place, _, what = fault.removeprefix(f"{path}:").partition(": ")
            collector.fault(place, what)
        return collector
    except UsageError as error:
        collector.fault("1", error.message)
        return collector
    for place, what in contents.faults:
        collector.fault(place, what)
    if collector.rule is not None and contents.columns:
        with no_collector():
            _fill(collector, contents)
    return collector


def _fill(collector: _Collector, contents: FileRows) -> None:
    """Make examples of rows, unless a column is missing in all of them, which is already a fault."""
    assert collector.rule is not None
    if all(name in contents.columns for name in collector.rule.columns):
        for place, row in contents.rows:
            if not collector.row(place, row):
                break


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
    return _rows(cast(_Table, table), source, folder)


def _rows(table: _Table, source: DatasetSource | TextDatasetSource, folder: Path) -> _Collector:
    if isinstance(source, TextDatasetSource):
        collector = _Collector(source.dataset, text_rule(source.text), source.passage)
    else:
        collector = _Collector(source.dataset, _rule_in_spec(source), folder=folder)
    keys = collector.choose(table.column_names)
    if collector.faults:
        return collector
    if source.limit is not None:
        table = table.select(range(min(source.limit, len(table))))
    image = collector.rule and collector.rule.image
    if image and hasattr(table.features[image], "decode"):  # its file as it is, which is looked at like any other
        table = table.cast_column(image, type(table.features[image])(decode=False))
    labels = {key: getattr(table.features[key], "names", None) for key in keys}
    for number, row in enumerate(table, start=1):
        for key, names in labels.items():
            value = row[key]
            if names and isinstance(value, int) and 0 <= value < len(names):
                row[key] = names[value]
        if isinstance(source, TextDatasetSource) and not str(row[source.text] or "").strip():
            continue  # collections of plain text have empty rows between paragraphs
        if not collector.row(f"row {number}", row):
            break
    return collector
