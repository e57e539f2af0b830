"""Conversations as examples: the last answer is the output, and the text before it is the input."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# the role that each name of a role in data sets stands for
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
SURROGATE = re.compile("[\ud800-\udfff]")
_ROLE_KEYS, _TEXT_KEYS = ("role", "from"), ("content", "value")


class BadRowError(ValueError):
    """Raised for a row that cannot become an example; the message says why."""


@dataclass
class Unread:
    """What was in the rows of a source but is in no example, so that the user can be told.

    Args:
        fields: the names of columns and keys, in the order in which they were met.
        after_answer: the number of conversations that go on after their last answer.
    """

    fields: dict[str, None] = field(default_factory=dict)
    after_answer: int = 0


def cell_text(row: Mapping[str, object], key: str) -> str:
    """Return the text of a row's cell; numbers become text.

    Args:
        row: the row.
        key: the name of the column.

    Raises:
        BadRowError: If the cell is missing, empty, neither text nor a finite number, or not valid Unicode.
    """
    if key not in row:
        raise BadRowError(f"has no {key!r}")
    value = row[key]
    if value is None or (isinstance(value, float) and value != value):
        raise BadRowError(f"{key!r} is empty")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise BadRowError(f"{key!r} is not a finite number")
    if not isinstance(value, str | int | float):
        raise BadRowError(f"{key!r} is a {type(value).__name__}, not text")
    text = str(value)
    if not text or text.isspace():
        raise BadRowError(f"{key!r} is empty")
    if not text.isascii() and SURROGATE.search(text):
        raise BadRowError(f"{key!r} is not valid Unicode: it holds half of a surrogate pair")
    return text


def last_answer(turns: object, column: str, unread: Unread) -> tuple[str, str]:
    """Return the text before a conversation's last answer, and that answer.

    A system turn is written first, followed by an empty line. A single turn of the user is written without a prefix;
    several turns are written as ``User: ...`` and ``Assistant: ...``, each on a line.

    Args:
        turns: the turns, each a mapping with ``role`` and ``content``, or with ``from`` and ``value``.
        column: the name of the column that holds them, for messages.
        unread: receives what is not read.

    Raises:
        BadRowError: If there is no answer, no user's turn before it, or a turn that is not plain text.
    """
    if not isinstance(turns, list) or not turns:
        raise BadRowError(f"{column!r} is no list of turns")
    parsed = [_turn(turn, column, unread) for turn in turns]
    answers = [index for index, (role, _) in enumerate(parsed) if role == "assistant"]
    if not answers:
        raise BadRowError(f"{column!r} has no turn of the assistant")
    unread.after_answer += answers[-1] + 1 < len(parsed)
    return prompt_text(parsed[: answers[-1]], column), parsed[answers[-1]][1]


def prompt_text(turns: list[tuple[str, str]], column: str) -> str:
    """Return turns as one text, in the form that ``last_answer`` describes.

    Args:
        turns: the role and the text of each turn.
        column: the name of the column that holds them, for messages.

    Raises:
        BadRowError: If there is no turn of the user.
    """
    if not any(role == "user" for role, _ in turns):
        raise BadRowError(f"{column!r} has no turn of the user before the answer")
    systems = [text for role, text in turns if role == "system"]
    others = [(role, text) for role, text in turns if role != "system"]
    single = len(others) == 1
    lines = [text if single else f"{role.capitalize()}: {text}" for role, text in others]
    return "\n\n".join([*systems, "\n".join(lines)])


def turns_of(value: object, column: str, unread: Unread) -> list[tuple[str, str]]:
    """Return the role and the text of each turn of a list.

    Args:
        value: the cell, which should be a list of turns.
        column: the name of the column, for messages.
        unread: receives what is not read.

    Raises:
        BadRowError: If a turn is not plain text.
    """
    if not isinstance(value, list) or not value:
        raise BadRowError(f"{column!r} is no list of turns")
    return [_turn(turn, column, unread) for turn in value]


def _turn(turn: object, column: str, unread: Unread) -> tuple[str, str]:
    if not isinstance(turn, Mapping):
        raise BadRowError(f"{column!r} holds a turn that is no mapping")
    role_key = next((key for key in _ROLE_KEYS if key in turn), None)
    text_key = next((key for key in _TEXT_KEYS if key in turn), None)
    if role_key is None or text_key is None:
        raise BadRowError(f"{column!r} holds a turn without {' and '.join(_ROLE_KEYS)}, or without content and value")
    role = turn[role_key]
    known = _ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise BadRowError(f"{column!r} holds a turn of {str(role)[:40]!r}, not of system, user or assistant")
    unread.fields.update({f"{column}.{key}": None for key in turn if key not in (role_key, text_key) and turn[key]})
    return known, cell_text({f"{column}.{text_key}": _plain(turn[text_key], column)}, f"{column}.{text_key}")


def _plain(content: object, column: str) -> object:
    """Join the text parts of a content that is a list of parts; return any other content as it is."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise BadRowError(f"{column!r} holds a part that is not text")
        texts.append(str(part["text"]))
    return "".join(texts)
