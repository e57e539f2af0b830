"""Reads a file of task texts for ``gen --batch``, and names the folder that each text gets."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, RootModel, ValidationError, model_validator

from icmlora_cli.config.spec_yaml import MAX_BYTES, KeyPath, YamlDocument, faults_of, load_yaml
from icmlora_cli.config.user_files import read_text
from icmlora_cli.disk.files import as_object
from icmlora_cli.disk.home import NAME, NAME_RULE
from icmlora_cli.errors import SpecError, UsageError
from icmlora_cli.tasks.task_text import checked_text

LONGEST = 80  # the most characters of a folder's name that is made from a text
MOST = 20_000  # texts of a batch
YAML, JSON = (".yaml", ".yml"), ".json"


@dataclass(frozen=True)
class BatchItem:
    """A text of a batch.

    Args:
        name: The name of its folder.
        text: The task in words, trimmed.
        place: The line of the file, for messages.
    """

    name: str
    text: str
    place: str


def _text(value: str) -> str:
    try:
        return checked_text(value)
    except UsageError as error:
        raise ValueError(error.message) from error


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"{value[:120]!r} cannot be a folder's name here: {NAME_RULE}")
    return value


class _FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    text: Annotated[str, AfterValidator(_text)]
    name: Annotated[str, AfterValidator(_name)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_text(cls, value: object) -> object:
        return {"text": value} if isinstance(value, str) else value


class _FileEntries(RootModel[tuple[_FileEntry, ...]]):
    """A list of entries."""


def folder_name(text: str) -> str:
    """Return a folder's name for a text: its letters and digits, in ASCII and lower case, with ``-`` between words.

    Where that leaves something out (letters of other scripts, or what is beyond 80 characters), 8 digits of the text's
    SHA-256 follow, so that different texts get different names.
    """
    plain = unicodedata.normalize("NFKD", text)
    words = "-".join(re.findall(r"[a-z0-9]+", plain.encode("ascii", "ignore").decode().lower()))
    whole = all(char.isascii() for char in plain if char.isalnum())
    if words and whole and len(words) <= LONGEST:
        return words
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{words[: LONGEST - 9].strip('-') or 'task'}-{digest}"


def read_batch(path: Path) -> tuple[BatchItem, ...]:
    """Read the texts of a batch.

    Args:
        path: A YAML or JSON list of ``text`` and, if wanted, ``name``; or any other text file with one text a line, of
            which empty lines are ignored. A text without a name gets one by ``folder_name``.

    Raises:
        SpecError: If the file has faults, such as two texts with the same folder; the error lists all of them.
        UsageError: If there is no such file, or it cannot be read.
    """
    suffix = path.suffix.lower()
    items, faults = _listed(path) if suffix in YAML or suffix == JSON else _lines(path)
    if not items and not faults:
        faults = [f"{path}:1: there is not one text"]
    faults += _same_names(items, path)
    if faults:
        raise SpecError.counted(f"{path} has", faults)
    return items


def _listed(path: Path) -> tuple[tuple[BatchItem, ...], list[str]]:
    document = _json(path) if path.suffix.lower() == JSON else load_yaml(path, verbatim=("text", "name"))
    if isinstance(document.value, list):
        _check_count(len(document.value), path)
    try:
        entries = _FileEntries.model_validate([] if document.value is None else document.value).root
    except ValidationError as error:
        return (), faults_of(error, document, path, _FileEntry)
    lines = [document.line((index,)) for index in range(len(entries))]
    pairs = zip(entries, lines, strict=True)
    return tuple(BatchItem(item.name or folder_name(item.text), item.text, str(line)) for item, line in pairs), []


def _check_count(count: int, path: Path) -> None:
    if count > MOST:
        fault = f"{path}:1: has {count:,} texts, and a batch has at most {MOST:,}"
        raise SpecError(f"{path} has one fault", [fault], hint="divide it into several files")


def _json(path: Path) -> YamlDocument:
    """Read JSON with its own parser, since YAML's rejects tabs and surrogate pairs."""
    try:
        value = json.loads(read_text(path, limit=MAX_BYTES))
    except json.JSONDecodeError as error:
        raise SpecError(f"{path} has one fault", [f"{path}:{error.lineno}: not valid JSON: {error.msg}"]) from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise SpecError(f"{path} has one fault", [f"{path}:1: not valid JSON: {why}"]) from error
    places: dict[KeyPath, int] = {(): 1}
    for index, row in enumerate(value[:MOST] if isinstance(value, list) else ()):
        places[(index,)] = 1
        places.update({(index, key): 1 for key in as_object(row)})
    return YamlDocument(value, places)


def _lines(path: Path) -> tuple[tuple[BatchItem, ...], list[str]]:
    items, faults = [], []
    lines = [
        (number, line) for number, line in enumerate(read_text(path, limit=MAX_BYTES).split("\n"), 1) if line.strip()
    ]
    _check_count(len(lines), path)
    for number, line in lines:
        try:
            text = _text(line)
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
            continue
        items.append(BatchItem(folder_name(text), text, str(number)))
    return tuple(items), faults


def _same_names(items: Sequence[BatchItem], path: Path) -> list[str]:
    """Return a fault for each text whose folder an earlier text has; case does not count, as on some file systems."""
    first: dict[str, BatchItem] = {}
    faults = []
    for item in items:
        other = first.setdefault(item.name.casefold(), item)
        if other is not item:
            same = other.text == item.text
            what = "the same text twice" if same else "give both a name, in a YAML list of name and text"
            faults.append(
                f"{path}:{item.place}: its folder would be {item.name}, as that of line {other.place}: {what}"
            )
    return faults
