"""Rewriting a calendar date, or taking one part of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from icmlora_cli.tasks.builtin.split import words_of
from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.examples import Example

FAMILY = "dates"
HELD_OUT = ("slash_date_to_us", "iso_date_to_month")

MONTHS = words_of("January February March April May June July August September October November December")


@dataclass(frozen=True)
class _Date:
    """A calendar date, which the tasks write in several forms."""

    year: int
    month: int
    day: int


_SOURCES: dict[str, tuple[str, Callable[[_Date], str]]] = {
    "iso": ("an ISO date (year-month-day)", lambda d: f"{d.year}-{d.month:02}-{d.day:02}"),
    "slash": ("a day/month/year date", lambda d: f"{d.day:02}/{d.month:02}/{d.year}"),
}
_TARGETS: dict[str, tuple[str, Callable[[_Date], str]]] = {
    "long": (
        "the day, month name and year, like 5 March 2021",
        lambda d: f"{d.day} {MONTHS[d.month - 1]} {d.year}",
    ),
    "us": (
        "the month name, day and year, like March 5, 2021",
        lambda d: f"{MONTHS[d.month - 1]} {d.day}, {d.year}",
    ),
    "month": ("the name of its month only", lambda d: MONTHS[d.month - 1]),
    "year": ("its four-digit year only", lambda d: str(d.year)),
}
_TEMPLATES = (
    "Given {source}, output {target}.",
    "Rewrite {source} as {target}.",
    "The input is {source}, so answer with {target}.",
    "Turn {source} into {target}.",
    "Read {source} and reply with {target}.",
)


def _draw(source: str, target: str) -> Draw:
    show, answer = _SOURCES[source][1], _TARGETS[target][1]

    def draw(rng: random.Random) -> Example:
        date = _Date(rng.randint(1950, 2049), rng.randint(1, 12), rng.randint(1, 28))
        return Example(show(date), answer(date))

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{source}_date_to_{target}",
            {"from": source, "to": target},
            fill(_TEMPLATES, source=shown, target=written),
            _draw(source, target),
            HELD_OUT,
        )
        for source, (shown, _) in _SOURCES.items()
        for target, (written, _) in _TARGETS.items()
    )
