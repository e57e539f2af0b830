"""Clock times: from one clock to the other, an hour later, and the parts of a time."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.examples import Example

FAMILY = "times"
HELD_OUT = ("hour_later_12h",)


def _clock24(hour: int, minute: int) -> str:
    return f"{hour % 24:02}:{minute:02}"


def _clock12(hour: int, minute: int) -> str:
    return f"{(hour - 1) % 12 + 1}:{minute:02} {'AM' if hour % 24 < 12 else 'PM'}"


_CLOCKS: dict[str, tuple[str, Callable[[int, int], str]]] = {
    "24h": ("a 24-hour clock time", _clock24),
    "12h": ("a time with AM or PM", _clock12),
}
_SAY = {
    ("convert", "24h"): "the same time on the 12-hour clock with AM or PM",
    ("convert", "12h"): "the same time on the 24-hour clock",
    ("hour_later", "24h"): "the time one hour later in the same format",
    ("hour_later", "12h"): "the time one hour later in the same format",
    ("hour", "24h"): "the digits of its hour only",
    ("hour", "12h"): "the digits of its hour only",
    ("minutes", "24h"): "the two digits of its minutes only",
    ("minutes", "12h"): "the two digits of its minutes only",
}
_TEMPLATES = (
    "Given {clock}, output {result}.",
    "The input is {clock}, so answer with {result}.",
    "Read {clock} and reply with {result}.",
    "Take {clock} and write {result}.",
    "For {clock}, give {result}.",
)


def _answer(op: str, clock: str, hour: int, minute: int) -> str:
    if op == "convert":
        return _CLOCKS["12h" if clock == "24h" else "24h"][1](hour, minute)
    if op == "hour_later":
        return _CLOCKS[clock][1](hour + 1, minute)
    return _CLOCKS[clock][1](hour, minute).split(":")[0] if op == "hour" else f"{minute:02}"


def _draw(op: str, clock: str) -> Draw:
    show = _CLOCKS[clock][1]

    def draw(rng: random.Random) -> Example:
        hour, minute = rng.randrange(24), rng.randrange(60)
        return Example(show(hour, minute), _answer(op, clock, hour, minute))

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{op}_{clock}",
            {"operation": op, "clock": clock},
            fill(_TEMPLATES, clock=_CLOCKS[clock][0], result=result),
            _draw(op, clock),
            HELD_OUT,
        )
        for (op, clock), result in _SAY.items()
    )
