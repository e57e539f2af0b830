"""Counting words, letters, vowels, one letter, or list items; the answer in digits or in words."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.numbers import number_words
from icmlora_cli.tasks.builtin.types import BuiltinTask, chosen, fill, joined, make, mapped
from icmlora_cli.tasks.builtin.words import ALL_WORDS, SHORT_NOUNS

FAMILY = "counting"
HELD_OUT = ("count_vowels_in_words",)


def _letter_in_word(rng: random.Random) -> str:
    word = rng.choice(ALL_WORDS)
    letter = rng.choice(word if rng.random() < 0.85 else "aeinorst")
    return f"{letter} in {word}"


def _count_letter(text: str) -> int:
    letter, _, word = text.partition(" in ")
    return word.count(letter)


_COUNTED: dict[str, tuple[str, str, Callable[[random.Random], str], Callable[[str], int]]] = {
    "words": ("words", "in the phrase", joined(SHORT_NOUNS, 1, 8, " "), lambda text: len(text.split())),
    "letters": ("letters", "in the word", chosen(ALL_WORDS), len),
    "vowels": (
        "vowels (a, e, i, o, u)",
        "in the word",
        chosen(ALL_WORDS),
        lambda text: sum(letter in "aeiou" for letter in text),
    ),
    "given_letter": ("copies of the named letter", "in the word", _letter_in_word, _count_letter),
    "items": (
        "items",
        "in the comma-separated list",
        joined(SHORT_NOUNS, 1, 8),
        lambda text: text.count(",") + 1,
    ),
}
_FORMS: dict[str, tuple[str, Callable[[int], str]]] = {
    "digits": ("digits", str),
    "words": ("English words", number_words),
}
_TEMPLATES = (
    "Count the {things} {where} and give the total in {form}.",
    "Count how many {things} stand {where}, answering in {form} only.",
    "Work out the number of {things} {where} and write it in {form}.",
    "Say how many {things} there are {where}, using {form}.",
    "Reply in {form} with the count of {things} {where}.",
)
_WITH_WORDS = ("letters", "vowels", "items")


def _build(counted: str, form: str) -> BuiltinTask:
    things, where, source, count = _COUNTED[counted]
    written, write = _FORMS[form]
    return make(
        FAMILY,
        f"count_{counted}" + ("_in_words" if form == "words" else ""),
        {"counted": counted, "answer": form},
        fill(_TEMPLATES, things=things, where=where, form=written),
        mapped(source, lambda text: write(count(text))),
        HELD_OUT,
    )


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    digits = tuple(_build(counted, "digits") for counted in _COUNTED)
    return digits + tuple(_build(counted, "words") for counted in _WITH_WORDS)
