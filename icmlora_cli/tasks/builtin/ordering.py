"""Sorting words or numbers, and picking the extreme one."""

import random
from collections.abc import Sequence

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.builtin.words import NUMBER_NAMES, SHORT_NOUNS
from icmlora_cli.tasks.examples import Example

WORDS_FAMILY = "order_words"
NUMBERS_FAMILY = "order_numbers"
HELD_OUT = ("alphabetical_last_of_4", "largest_of_4")

_PICK_TEMPLATES = (
    "Of {n} comma-separated {things}, output the {which}.",
    "Compare the {n} {things} in the list and answer with the {which}.",
    "Given a list of {n} {things}, return only the {which}.",
    "Find which of the {n} listed {things} is the {which} and write it.",
    "Reply with the {which} among {n} {things}.",
)
_SORT_TEMPLATES = (
    "Sort the {n} comma-separated {things} in {order} order.",
    "Put a list of {n} {things} into {order} order, separated by commas.",
    "Rewrite the {n} {things} so that they are in {order} order.",
    "Return the same {n} {things} arranged in {order} order.",
    "Reorder the list of {n} {things} into {order} order and output all of it.",
)
_WHICH = {
    "alphabetical_first": "one that comes first alphabetically",
    "alphabetical_last": "one that comes last alphabetically",
    "smallest": "smallest one",
    "largest": "largest one",
}


def _answer_words(op: str, items: Sequence[str]) -> str:
    ordered = sorted(items)
    if op == "sort_words":
        return ", ".join(ordered)
    return ordered[0] if op == "alphabetical_first" else ordered[-1]


def _answer_numbers(op: str, items: Sequence[int]) -> str:
    ordered = sorted(items)
    if op == "sort_numbers":
        return ", ".join(str(item) for item in ordered)
    return str(ordered[0] if op == "smallest" else ordered[-1])


def _draw_words(op: str, count: int) -> Draw:
    def draw(rng: random.Random) -> Example:
        items = rng.sample(SHORT_NOUNS, count)
        return Example(", ".join(items), _answer_words(op, items))

    return draw


def _draw_numbers(op: str, count: int) -> Draw:
    def draw(rng: random.Random) -> Example:
        items = rng.sample(range(1, 100), count)
        return Example(", ".join(str(item) for item in items), _answer_numbers(op, items))

    return draw


def _describe(op: str, count: int, things: str, order: str) -> tuple[str, ...]:
    if op in _WHICH:
        return fill(_PICK_TEMPLATES, n=NUMBER_NAMES[count], things=things, which=_WHICH[op])
    return fill(_SORT_TEMPLATES, n=NUMBER_NAMES[count], things=things, order=order)


def _build(family: str, op: str, count: int) -> BuiltinTask:
    words = family == WORDS_FAMILY
    things, order = ("words", "alphabetical") if words else ("numbers", "increasing")
    draw = _draw_words(op, count) if words else _draw_numbers(op, count)
    axes = {"operation": op, "count": str(count)}
    return make(family, f"{op}_of_{count}", axes, _describe(op, count, things, order), draw, HELD_OUT)


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of both families."""
    ops = {
        WORDS_FAMILY: ("alphabetical_first", "alphabetical_last", "sort_words"),
        NUMBERS_FAMILY: ("smallest", "largest", "sort_numbers"),
    }
    return tuple(_build(family, op, count) for family in ops for op in ops[family] for count in (3, 4))
