"""Named rules that say which columns of a row are the input and the output of an example."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from icmlora_cli.tasks.boxes import PROMPT
from icmlora_cli.tasks.conversations import BadRowError, Unread, cell_text, last_answer, prompt_text, turns_of

Row = Mapping[str, object]
_FIELD = re.compile(r"\{([^{}]+)\}")
_FIXED = re.compile(r"<[^<>{}]+>")


@dataclass(frozen=True)
class RowRule:
    """A way in which a row becomes an example.

    Args:
        name: the name that ``task preview`` shows.
        columns: the columns that the rule needs.
        pair: returns the input and the output of a row; raises ``BadRowError`` for a row that is no example.
        optional: the columns that the rule reads if a row has them.
        image: the column of the image that the input is about; None without one.
        boxes: the column of labelled boxes that become the output; None without one.
    """

    name: str
    columns: tuple[str, ...]
    pair: Callable[[Row, Unread], tuple[str, str]]
    optional: tuple[str, ...] = ()
    image: str | None = None
    boxes: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """All columns that the rule reads."""
        return self.columns + self.optional


def rule_of(columns: Collection[str]) -> RowRule | None:
    """Return the first rule that can read rows with these columns, or None if there is none."""
    return next((rule for rule in RULES if set(rule.columns) <= set(columns) and _fits(rule, columns)), None)


def _fits(rule: RowRule, columns: Collection[str]) -> bool:
    ignored = {"instruction", "image"}  # columns which the rule would ignore
    return rule.name != "input-output" or ignored.isdisjoint(columns)


def columns_rule(input: str, output: str, image: str | None = None) -> RowRule:
    """Return the rule of a task file's ``columns``.

    Args:
        input: the column of the input, or a text with columns in braces, such as ``{question} ({unit})``; with an
            image, also a text in angle brackets, such as ``<OD>``, which is the input of every row.
        output: the column of the output, or such a text.
        image: the column of the image; None without one.
    """
    fixed = image is not None and _FIXED.fullmatch(input) is not None
    names = tuple(
        dict.fromkeys([*([] if image is None else [image]), *([] if fixed else _names(input)), *_names(output)])
    )

    def pair(row: Row, unread: Unread) -> tuple[str, str]:
        return input if fixed else _filled(row, input), _filled(row, output)

    return RowRule("columns", names, pair, image=image)


def text_rule(column: str) -> RowRule:
    """Return the rule for plain text, whose passages are in one column."""
    return RowRule("text", (column,), lambda row, unread: ("", cell_text(row, column)))


def _names(pattern: str) -> list[str]:
    return _FIELD.findall(pattern) or [pattern]


def _filled(row: Row, pattern: str) -> str:
    if not _FIELD.search(pattern):
        return cell_text(row, pattern)
    return _FIELD.sub(lambda match: cell_text(row, match[1]), pattern)


def _conversation(column: str, row: Row, unread: Unread) -> tuple[str, str]:
    if column not in row:
        raise BadRowError(f"has no {column!r}")
    return last_answer(row[column], column, unread)


def _two(input: str, output: str, row: Row, unread: Unread) -> tuple[str, str]:
    return cell_text(row, input), cell_text(row, output)


def _prompted(prompt: str, completion: str, row: Row, unread: Unread) -> tuple[str, str]:
    """Read a prompt and its completion, which are texts, or lists of turns, as TRL also allows."""
    if isinstance(row.get(prompt), list):
        question = prompt_text(turns_of(row[prompt], prompt, unread), prompt)
    else:
        question = cell_text(row, prompt)
    if not isinstance(row.get(completion), list):
        return question, cell_text(row, completion)
    turns = turns_of(row[completion], completion, unread)
    if len(turns) != 1 or turns[0][0] != "assistant":
        raise BadRowError(f"{completion!r} is not one turn of the assistant")
    return question, turns[0][1]


def _instructed(instruction: str, input: str, output: str, row: Row, unread: Unread) -> tuple[str, str]:
    """Read an instruction and, after an empty line, its input if it has one."""
    question, given = cell_text(row, instruction), row.get(input)
    if given is not None and not (isinstance(given, str) and not given.strip()):
        question += "\n\n" + cell_text(row, input)
    return question, cell_text(row, output)


def _located(row: Row, unread: Unread) -> tuple[str, str]:
    """Read the input of a row whose output is made of its boxes."""
    return cell_text(row, "input") if row.get("input") is not None else PROMPT, ""


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
    RowRule("image", ("image", "input", "output"), partial(_two, "input", "output"), image="image"),
    RowRule("image-boxes", ("image", "boxes"), _located, ("input",), image="image", boxes="boxes"),
)
