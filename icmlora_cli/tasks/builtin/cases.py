"""Changing the case of a word or of a phrase."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.types import BuiltinTask, chosen, fill, joined, make, mapped
from icmlora_cli.tasks.builtin.words import ALL_WORDS, SHORT_NOUNS

FAMILY = "case"
HELD_OUT = ("lowercase_phrase",)

_CHANGES: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "uppercase": (str.lower, str.upper),
    "lowercase": (str.upper, str.lower),
    "capitalize": (str.lower, str.title),
}
_HOW = {
    ("uppercase", "word"): "entirely in capital letters",
    ("uppercase", "phrase"): "with all of its words in capital letters",
    ("lowercase", "word"): "entirely in small letters",
    ("lowercase", "phrase"): "with all of its words in small letters",
    ("capitalize", "word"): "with a capital first letter",
    ("capitalize", "phrase"): "with a capital first letter on every word",
}
_TEMPLATES = (
    "Rewrite the {unit} {how}.",
    "Output the same {unit} {how}.",
    "Write the given {unit} {how} and change nothing else.",
    "Repeat the input {unit} {how}.",
    "Return the {unit} {how}, keeping its spelling.",
)


def _source(unit: str, before: Callable[[str], str]) -> Callable[[random.Random], str]:
    draw = chosen(ALL_WORDS) if unit == "word" else joined(SHORT_NOUNS, 2, 4, " ")
    return lambda rng: before(draw(rng))


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{change}_{unit}",
            {"change": change, "unit": unit},
            fill(_TEMPLATES, unit=unit, how=_HOW[change, unit]),
            mapped(_source(unit, before), after),
            HELD_OUT,
        )
        for change, (before, after) in _CHANGES.items()
        for unit in ("word", "phrase")
    )
