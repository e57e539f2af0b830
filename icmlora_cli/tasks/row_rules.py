"""Named rules by which rows become examples: which columns are the input and the output."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from icmlora_cli.tasks.conversations import BadRowError, Unread, cell_text, last_answer, prompt_text, turns_of

Row = Mapping[str, object]
_FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class RowRule:
    """How a row becomes an example.

    Args:
        name: what ``task preview`` calls it.
        columns: those that must be there.
        optional: those that are read where they are there.
        pair: returns input and output of a row; raises BadRowError.
    """

    name: str
    columns: tuple[str, ...]
    pair: Callable[[Row, Unread], tuple[str, str]]
    optional: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """All columns that are looked at."""
        return self.columns + self.optional


def rule_of(columns: Collection[str]) -> RowRule | None:
    """Return the rule that reads these columns, or None if none does."""
    return next((rule for rule in RULES if set(rule.columns) <= set(columns) and _fits(rule, columns)), None)


def _fits(rule: RowRule, columns: Collection[str]) -> bool:
    return rule.name != "input-output" or "instruction" not in columns  # or the instruction would be lost


def columns_rule(input: str, output: str) -> RowRule:
    """Return the rule of a task file's ``columns``: names, or texts with names in braces, ``{question} ({unit})``."""
    names = tuple(dict.fromkeys([*_names(input), *_names(output)]))

    def pair(row: Row, unread: Unread) -> tuple[str, str]:
        return _filled(row, input), _filled(row, output)

    return RowRule("columns", names, pair)


def text_rule(column: str) -> RowRule:
    """Return the rule of plain text: a column is the passage."""
    return RowRule("text", (column,), lambda row, unread: ("", cell_text(row, column)))


def _names(pattern: str) -> list[str]:
    return _FIELD.findall(pattern) or [pattern]


def _filled(row: Row, pattern: str) -> str:
    if not _FIELD.search(pattern):
        return cell_text(row, pattern)
    return _FIELD.sub(lambda found: cell_text(row, found[1]), pattern)


def _conversation(column: str, row: Row, unread: Unread) -> tuple[str, str]:
    if column not in row:
        raise BadRowError(f"has no {column!r}")
    return last_answer(row[column], column, unread)


def _two(input: str, output: str, row: Row, unread: Unread) -> tuple[str, str]:
    return cell_text(row, input), cell_text(row, output)


def _prompted(prompt: str, completion: str, row: Row, unread: Unread) -> tuple[str, str]:
    """Read a prompt and what completes it, as texts or, as TRL has them too, as lists of turns."""
    if isinstance(row.get(prompt), list):
        asked = prompt_text(turns_of(row[prompt], prompt, unread), prompt)
    else:
        asked = cell_text(row, prompt)
    if not isinstance(row.get(completion), list):
        return asked, cell_text(row, completion)
    turns = turns_of(row[completion], completion, unread)
    if len(turns) != 1 or turns[0][0] != "assistant":
        raise BadRowError(f"{completion!r} is not one turn of the assistant")
    return asked, turns[0][1]


def _instructed(instruction: str, input: str, output: str, row: Row, unread: Unread) -> tuple[str, str]:
    """Read an instruction and, where there is one, its input, with an empty line between them."""
    asked, given = cell_text(row, instruction), row.get(input)
    if given is not None and not (isinstance(given, str) and not given.strip()):
        asked += "\n\n" + cell_text(row, input)
    return asked, cell_text(row, output)


RULES = (
    RowRule("input-output", ("input", "output"), partial(_two, "input", "output")),
    RowRule("messages", ("messages",), partial(_conversation, "messages")),
    RowRule("sharegpt", ("conversations",), partial(_conversation, "conversations")),
    RowRule("alpaca", ("instruction", "output"), partial(_instructed, "instruction", "input", "output"), ("input",)),
    RowRule(
        "dolly", ("instruction", "response"), partial(_instructed, "instruction", "context", "response"), ("context",)
    ),
    RowRule("prompt-completion", ("prompt", "completion"), partial(_prompted, "prompt", "completion")),
    RowRule("prompt-response", ("prompt", "response"), partial(_prompted, "prompt", "response")),
    RowRule("question-answer", ("question", "answer"), partial(_two, "question", "answer")),
    RowRule("text-label", ("text", "label"), partial(_two, "text", "label")),
)
