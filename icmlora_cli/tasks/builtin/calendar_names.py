"""The weekday or month named in a short note: the next one, the one before, its number, its short form."""

import random
from collections.abc import Callable, Sequence

from icmlora_cli.tasks.builtin.dates import MONTHS
from icmlora_cli.tasks.builtin.split import words_of
from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.builtin.words_nouns import EVENTS
from icmlora_cli.tasks.examples import Example

FAMILY = "calendar"
HELD_OUT = ("previous_weekday", "month_abbreviation")

WEEKDAYS = words_of("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

_NAMES: dict[str, tuple[str, Sequence[str]]] = {"weekday": ("on", WEEKDAYS), "month": ("in", MONTHS)}
_ANSWERS: dict[str, Callable[[Sequence[str], int], str]] = {
    "next": lambda names, index: names[(index + 1) % len(names)],
    "previous": lambda names, index: names[index - 1],
    "number": lambda names, index: str(index + 1),
    "abbreviation": lambda names, index: names[index][:3],
}
_RESULTS = {
    ("next", "weekday"): "the weekday after the one",
    ("next", "month"): "the month after the one",
    ("previous", "weekday"): "the weekday before the one",
    ("previous", "month"): "the month before the one",
    ("number", "weekday"): "the number from 1 (Monday) to 7 (Sunday) of the weekday",
    ("number", "month"): "the number from 1 to 12 of the month",
    ("abbreviation", "weekday"): "the three-letter short form of the weekday",
    ("abbreviation", "month"): "the three-letter short form of the month",
}
_TEMPLATES = (
    "Output {result} named in the note.",
    "Read the short note and answer with {result} it mentions.",
    "Write {result} that the event falls {prep}.",
    "Give nothing but {result} given for the event.",
    "Find {result} that stands at the end of the input.",
)


def _draw(op: str, unit: str) -> Draw:
    word, names = _NAMES[unit]
    answer = _ANSWERS[op]

    def draw(rng: random.Random) -> Example:
        index = rng.randrange(len(names))
        return Example(f"{rng.choice(EVENTS)} {word} {names[index]}", answer(names, index))

    return draw


def _name(op: str, unit: str) -> str:
    return f"{op}_{unit}" if op in ("next", "previous") else f"{unit}_{op}"


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            _name(op, unit),
            {"operation": op, "unit": unit},
            fill(_TEMPLATES, result=_RESULTS[op, unit], prep=_NAMES[unit][0]),
            _draw(op, unit),
            HELD_OUT,
        )
        for op in _ANSWERS
        for unit in _NAMES
    )
