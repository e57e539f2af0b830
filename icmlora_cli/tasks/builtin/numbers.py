"""Writing a whole number: in digits, in English words, as a Roman numeral, as an ordinal."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.split import words_of
from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.examples import Example

FAMILY = "numerals"
HELD_OUT = ("words_to_roman", "roman_to_ordinal")
LARGEST = 399

_UNITS = words_of("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen
    """)
_TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ROMAN = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL")),
    *((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)


def number_words(value: int) -> str:
    """Spell a number in English.

    Args:
        value: A number from 0 to 999.

    Returns:
        For example ``three hundred forty-two``.
    """
    if value < 20:
        return _UNITS[value]
    if value < 100:
        tens, rest = divmod(value, 10)
        return _TENS[tens] + (f"-{_UNITS[rest]}" if rest else "")
    hundreds, rest = divmod(value, 100)
    return f"{_UNITS[hundreds]} hundred" + (f" {number_words(rest)}" if rest else "")


def roman(value: int) -> str:
    """Write a positive number as a Roman numeral.

    Args:
        value: A number from 1 to 3999.

    Returns:
        For example ``XIV``.
    """
    text = ""
    for size, letters in _ROMAN:
        times, value = divmod(value, size)
        text += letters * times
    return text


def ordinal(value: int) -> str:
    """Write a number with its ordinal ending.

    Args:
        value: A number from 0.

    Returns:
        For example ``21st``.
    """
    teen = value % 100 in (11, 12, 13)
    return f"{value}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(value % 10, 'th')}"


_WRITE: dict[str, Callable[[int], str]] = {
    "digits": str,
    "words": number_words,
    "roman": roman,
    "ordinal": ordinal,
}
_SOURCE = {"digits": "in digits", "words": "in English words", "roman": "in Roman numerals"}
_TARGET = {
    "digits": "digits",
    "words": "English words",
    "roman": "a Roman numeral",
    "ordinal": "an ordinal such as 21st",
}
_TEMPLATES = (
    "Rewrite a number given {source} as {target}.",
    "Turn the number, which is written {source}, into {target}.",
    "Read a number {source} and write the same value as {target}.",
    "Convert each number shown {source} to {target}.",
    "Answer with {target} for the number that is given {source}.",
)
_PAIRS = (
    *(("digits", "words"), ("words", "digits"), ("digits", "roman"), ("roman", "digits")),
    *(("roman", "words"), ("words", "roman"), ("digits", "ordinal"), ("words", "ordinal")),
    ("roman", "ordinal"),
)


def _draw(source: str, target: str) -> Draw:
    def draw(rng: random.Random) -> Example:
        value = rng.randint(1, LARGEST)
        return Example(_WRITE[source](value), _WRITE[target](value))

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{source}_to_{target}",
            {"from": source, "to": target},
            fill(_TEMPLATES, source=_SOURCE[source], target=_TARGET[target]),
            _draw(source, target),
            HELD_OUT,
        )
        for source, target in _PAIRS
    )
