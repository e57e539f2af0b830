"""Reads examples that a user pasted: a line each, as ``input => output``, or rows as a file of examples has them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from icmlora_cli.errors import RequestError, SpecError, UsageError
from icmlora_cli.registry.task_record import PromptTemplate
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.sources import read_examples
from icmlora_cli.workflows.gen.options import ExampleFile, Template

MAX_PASTED = 200  # examples; the search trains on all of them, and a file of more is for icmlora gen
LISTED = 5  # lines that an error names
NAME = "pasted examples"
SIGNS = ("=>", "->", "→", "\t")  # what may stand between input and output; the first that a line has counts
FIELD = "examples"


def read_pasted(text: str, template: Template) -> ExampleFile | None:
    """Return the examples that a user pasted; None if there are none.

    Args:
        text: Lines of ``input => output``; JSON, JSON Lines, CSV or TSV with the columns ``input`` and ``output``; or,
            for plain text, passages with an empty line between them.
        template: The template by which the examples become prompts.

    Raises:
        RequestError: If lines are no examples, or there are too many.
    """
    if not text.strip():
        return None
    suffix = _suffix(text.strip())
    if suffix is not None:
        file = _from_rows(text.strip(), suffix, template)
    elif template == "text":
        passages = [" ".join(part.split()) for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
        file = _file([Example("", passage) for passage in passages], template)
    else:
        file = _from_lines(text, template)
    if len(file.examples) > MAX_PASTED:
        raise RequestError(
            f"there are {len(file.examples):,} examples; the playground reads at most {MAX_PASTED}", param=FIELD
        )
    return file


def _suffix(text: str) -> str | None:
    """Return the suffix of the file format that a text has; None for lines and passages."""
    if text[0] in "{[":
        return ".jsonl" if text[0] == "{" else ".json"
    head = text.partition("\n")[0].strip().casefold()
    for suffix, sign in ((".tsv", "\t"), (".csv", ",")):
        if {"input", "output"} <= {name.strip().strip('"') for name in head.split(sign)}:
            return suffix
    return None


def _file(examples: list[Example], template: Template, notes: tuple[str, ...] = ()) -> ExampleFile:
    return ExampleFile(Path(NAME), tuple(dict.fromkeys(examples)), PromptTemplate.from_spec(template), notes)


def _from_lines(text: str, template: Template) -> ExampleFile:
    examples, faults = list[Example](), list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        sign = next((sign for sign in SIGNS if sign in line), None)
        if sign is None:
            faults.append(f"line {number} has no => between input and output")
            continue
        before, _, after = line.partition(sign)
        if not before.strip() or not after.strip():
            faults.append(f"line {number} has no {'input before' if not before.strip() else 'output after'} the =>")
        else:
            examples.append(Example(before.strip(), after.strip()))
    if faults:
        raise _refused(faults)
    return _file(examples, template)


def _refused(faults: Sequence[str]) -> RequestError:
    """Return the error that names the first faults, and says how many more there are."""
    more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    return RequestError("; ".join(faults[:LISTED]) + more, param=FIELD)


def _from_rows(text: str, suffix: str, template: Template) -> ExampleFile:
    with tempfile.TemporaryDirectory(prefix="icmlora-play-") as folder:
        path = Path(folder) / f"examples{suffix}"
        path.write_text(text, encoding="utf-8")
        try:
            loaded = read_examples(path, text=template == "text")
        except SpecError as error:
            raise _refused([fault.replace(str(path), NAME) for fault in error.faults]) from error
        except UsageError as error:
            raise RequestError(error.message.replace(str(path), NAME), param=FIELD) from error
    return _file(list(loaded.examples), template, loaded.told())
