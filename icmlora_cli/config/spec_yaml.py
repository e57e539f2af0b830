"""YAML files checked as a whole: every fault at once, each with its file, line and key."""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from icmlora_cli.config.user_files import no_collector, read_text
from icmlora_cli.errors import SpecError

MAX_BYTES = 1 << 24  # of a YAML file
MAX_DEPTH = 64  # of lists and mappings within each other
MAX_VALUES = 200_000  # with each alias counted as what it stands for
# Events are the starts, ends and texts that the parser reports; an example of two keys has six. Each costs time and
# memory, whatever its bytes are, so a file may only have many if it is as long as 50,000 ordinary examples are.
MAX_EVENTS, SPARE_EVENTS, BYTES_AN_EVENT = 400_000, 50_000, 12
MAX_FAULTS = 200  # that are worded, each with its line; of the others only the number is said
MAX_DIGITS = 40  # of a whole number; the largest that a recipe or task file has any use for has 19

M = TypeVar("M", bound=BaseModel)
KeyPath = tuple[str | int, ...]
NOTHING: Mapping[str, str] = {}

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_INT = "tag:yaml.org,2002:int"
_MERGE = "tag:yaml.org,2002:merge"
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDING = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "dict_type": "should be a mapping",
    "model_type": "should be a mapping",
    "model_attributes_type": "should be a mapping",
    "string_type": "should be text (put it in quotes)",
}


@dataclass(frozen=True)
class YamlDocument:
    """The value of a YAML file, and the line of each of its keys.

    Args:
        value: what the file says, in plain Python types.
        lines: the line number, from 1, of each key (``("tasks", 0, "name")``); ``()`` is the document.
    """

    value: object
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Walk:
    """Collects lines and duplicate keys of a node tree, before it is made into values."""

    def __init__(self, file: str, verbatim: Collection[str]) -> None:
        self.file = file
        self.verbatim = verbatim
        self.lines: dict[KeyPath, int] = {}
        self.faults: list[str] = []
        self._values: dict[int, int] = {}

    def visit(self, node: yaml.Node, path: KeyPath) -> int:
        """Visit a node and return how many values it stands for; the node of an alias is visited only once.

        Raises:
            _BoundError: If there are too many values, the node contains itself, or a scalar cannot be used.
        """
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if id(node) in self._values:
            if not self._values[id(node)]:
                raise _BoundError(line, "an alias stands for what it is in itself")
            return self._values[id(node)]
        self._values[id(node)] = 0
        count = 1
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node, line)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                count += self.visit(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            count += self._mapping(node, path)
        if count > MAX_VALUES:
            raise _BoundError(line, f"stands for more than {MAX_VALUES:,} values")
        self._values[id(node)] = count
        return count

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> int:
        first: dict[str, int] = {}
        count = 0
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _BoundError(key.start_mark.line + 1, "a key is no text")
            _check_scalar(key, key.start_mark.line + 1)
            if key.tag == _MERGE:
                count += self.visit(value, (*path, "<<"))
                continue
            name, line = str(key.value), key.start_mark.line + 1
            if name in first and len(self.faults) == MAX_FAULTS:
                raise _BoundError(line, f"more than {MAX_FAULTS} keys are given twice")
            if name in first:
                where = ".".join(map(str, (*path, name)))
                self.faults.append(f"{self.file}:{line}: {where}: the key is given twice, first on line {first[name]}")
                continue
            first[name] = line
            self.lines[(*path, name)] = line
            if name in self.verbatim and isinstance(value, yaml.ScalarNode) and value.tag != _NULL:
                value.tag = _STR
            count += self.visit(value, (*path, name))
        return count


class _BoundError(Exception):
    """The file has a value beyond the bounds above, which is refused before it is built."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def _check_scalar(node: yaml.ScalarNode, line: int) -> None:
    text = str(node.value)
    if node.tag == _INT and len(text) > MAX_DIGITS:
        raise _BoundError(line, f"a number of {len(text):,} digits")
    if not text.isascii() and _SURROGATE.search(text):
        raise _BoundError(line, "half of a surrogate pair is no text")


def _check_size(text: str) -> None:
    """Check how much a document holds and how deeply it is nested, by its events, before its nodes are built.

    Building them recurses once for each level.
    """
    depth, most = 0, min(MAX_EVENTS, SPARE_EVENTS + len(text) // BYTES_AN_EVENT)
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if count > most:
            line = 1 if event.start_mark is None else event.start_mark.line + 1
            raise _BoundError(line, "too many values up to here; put examples into a JSONL file, and give its path")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = 1 if event.start_mark is None else event.start_mark.line + 1
                raise _BoundError(line, f"nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _spec_fault(path: Path, faults: list[str], hint: str | None = None) -> SpecError:
    count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
    return SpecError(f"{path} has {count}", faults, hint=hint)


def load_yaml(path: Path, *, verbatim: Collection[str] = ()) -> YamlDocument:
    """Read one YAML document.

    Args:
        path: the file.
        verbatim: keys whose scalars stay as they are written: ``yes``, ``007`` and ``1.10`` are then text,
            not true, 7 and 1.1.

    Raises:
        SpecError: If the file is not UTF-8, is not YAML, or gives a key twice.
        UsageError: If there is no such file, or it cannot be read.
    """
    return parse_yaml(
        read_text(path, limit=MAX_BYTES, hint="check the path, or give another YAML file"), path, verbatim
    )


def parse_yaml(text: str, path: Path, verbatim: Collection[str] = ()) -> YamlDocument:
    """Parse one YAML document.

    Args:
        text: the document.
        path: the file that it is from, for messages.
        verbatim: see ``load_yaml``.

    Raises:
        SpecError: If it is not YAML, is too large, or gives a key twice.
    """
    walk = _Walk(str(path), verbatim)
    try:
        _check_size(text)
        with no_collector():
            loader = _Loader(text)
            node = loader.get_single_node()
            if node is None:
                return YamlDocument(None, {(): 1})
            walk.visit(node, ())
            value: object = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise _spec_fault(path, [f"{path}:{line}: not valid YAML: {error.problem or error.context}"]) from error
    except _BoundError as error:
        raise _spec_fault(path, [f"{path}:{error.line}: {error}"]) from error
    except yaml.YAMLError as error:
        raise _spec_fault(path, [f"{path}:1: not valid YAML: {str(error).splitlines()[0]}"]) from error
    except RecursionError as error:
        raise _spec_fault(path, [f"{path}:1: not valid YAML: nested too deeply"]) from error
    except (
        ValueError,
        OverflowError,
        AttributeError,
    ) as error:  # a scalar that looks like a date or a number and is none
        raise _spec_fault(path, [f"{path}:1: a value is not what it looks like: {error}"]) from error
    if walk.faults:
        raise _spec_fault(path, walk.faults)
    return YamlDocument(value, walk.lines)


def load_spec(path: Path, model: type[M], *, moved: Mapping[str, str] = NOTHING) -> M:
    """Read a YAML file into a pydantic model; an empty file stands for no keys at all.

    Args:
        path: the file.
        model: the class of what the file should hold.
        moved: keys that older versions had at the top, each with the key that it stands under now.

    Raises:
        SpecError: lists every fault of the file, ``file:line: key: what is wrong``.
        UsageError: If there is no such file, or it cannot be read.
    """
    document = load_yaml(path)
    try:
        return model.model_validate({} if document.value is None else document.value)
    except ValidationError as error:
        raise _spec_fault(path, faults_of(error, document, path, model, moved)) from error


def faults_of(
    error: ValidationError,
    document: YamlDocument,
    file: Path,
    model: type[BaseModel] | None = None,
    moved: Mapping[str, str] = NOTHING,
) -> list[str]:
    """Return a line for each of the first 200 faults that pydantic found, in the order of the file.

    Args:
        error: what pydantic raised.
        document: the file that was checked.
        file: the file's name in the messages.
        model: the model that the file was checked against; with one, unknown keys then get a "did you mean".
        moved: keys that older versions had at the top, each with the key that it stands under now.
    """
    wordings: dict[tuple[int, str], list[str]] = {}
    found = error.errors(include_url=False, include_context=False)
    for item in found[:MAX_FAULTS]:
        path = _key_path(item, document)
        what = _wording(item)
        if item["type"] == "extra_forbidden" and len(path) == 1 and path[0] in moved:
            what = f"now stands under {moved[str(path[0])]}:"
        elif item["type"] == "extra_forbidden" and model is not None:
            what += _did_you_mean(str(path[-1]), _allowed(model, item["loc"][:-1]))
        key = ".".join(map(str, path)) or "the file"
        wordings.setdefault((document.line(path), key), []).append(what)
    ordered = sorted(wordings.items(), key=lambda pair: pair[0][0])
    faults = [f"{file}:{line}: {key}: {', or '.join(dict.fromkeys(whats))}" for (line, key), whats in ordered]
    rest = len(found) - MAX_FAULTS
    return [*faults, f"{file}: {rest:,} faults more, which are not listed"] if rest > 0 else faults


def _key_path(item: ErrorDetails, document: YamlDocument) -> KeyPath:
    """Leave out of pydantic's location what is not in the file: the names of a union's members."""
    path: KeyPath = ()
    for part in item["loc"]:
        if (*path, part) in document.lines:
            path = (*path, part)
    last = item["loc"][-1] if item["loc"] else None
    if item["type"] == "missing" and last is not None:
        path = (*path, last)
    elif item["type"] == "value_error" and isinstance(last, str) and last.isidentifier() and last not in path:
        path = (*path, last)  # a key that was left out, whose default does not go with the rest
    return path


def _wording(item: ErrorDetails) -> str:
    kind, value = item["type"], item["input"]
    if kind in ("missing", "extra_forbidden"):
        return _WORDING[kind]
    message = item["msg"].removeprefix("Value error, ")
    message = _WORDING.get(kind, message).replace("Input should", "should").replace("Tuple should", "should")
    if kind != "value_error" and isinstance(value, str | int | float):
        quoted = repr(value)
        return f"{message}, not {quoted if len(quoted) <= 60 else quoted[:57] + '...'}"
    return message


def _allowed(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Return the keys known at a location of a model."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        inner = [
            m for one in models if part in one.model_fields for m in _models(one.model_fields[str(part)].annotation)
        ]
        models = inner or models  # a list's index or a union's member: the same models still
    return {name for one in models for name in one.model_fields}


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are: {', '.join(sorted(known))}"
