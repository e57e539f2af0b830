"""More runs of numbers, letters and calendar names: what follows, what precedes, what is missing."""

import random
from collections.abc import Callable
from itertools import pairwise

from icmlora_cli.tasks.builtin.calendar_names import WEEKDAYS
from icmlora_cli.tasks.builtin.dates import MONTHS
from icmlora_cli.tasks.builtin.dense.build import COUNT_WORDS, Axes, Source, further
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask

FAMILY = "sequences"
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
_CYCLES: dict[str, tuple[str, ...]] = {"weekday": WEEKDAYS, "month": MONTHS}

_KINDS = {
    "number": "counting numbers|whole numbers|consecutive numbers",
    "even": "even numbers",
    "odd": "odd numbers",
    "by_five": "multiples of [five|5]|numbers in steps of [five|5]",
    "letter": "letters[ of the alphabet|]|consecutive letters",
    "run_of_weekdays": "weekdays|days of the week",
    "run_of_months": "months",
}


def _say_kind(kind: str) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    step = kind.rsplit("_", 1)[1]
    word = COUNT_WORDS[int(step)] if int(step) <= 10 else {"20": "twenty", "100": "one hundred"}.get(step, step)
    amount = f"[{word}|{step}]"
    if kind.startswith("down"):
        return f"numbers falling by {amount}|numbers that count down by {amount}"
    return f"multiples of {amount}|numbers in steps of {amount}|numbers rising by {amount}"


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    move, kind = axes["move"], axes["kind"]
    if kind == "single_letter":
        place, side = ("after", "next") if move == "next" else ("before", "previous")
        return Wording(
            "a letter|one letter|a letter of the alphabet",
            f"{{give}} the [{side} letter of the alphabet, {place} the given one|letter [right |]{place} it in"
            f" the alphabet|letter that comes [just |]{place} it]",
            f"the [{side} letter of the alphabet, {place} the given one|letter [right |]{place} the given one]",
            f"which letter comes [right|just|] {place} it[ in the alphabet|]",
        )
    things = f"[{_say_kind(kind)}]"
    thing = {"letter": "letter", "run_of_weekdays": "weekday", "run_of_months": "month"}.get(kind, "number")
    given = f"a [run|sequence|series|list] of {things}|some {things}[ in order|]"
    run = f"[run|sequence|series|list][ of {things}|]"
    if move == "missing":
        gap = "[missing|left out]"
        return Wording(
            f"{given} with a gap[| marked by an underscore]",
            f"[find|write|give|output|name] the {gap} {thing} of the {run}|fill [in |]the gap in the {run}",
            f"the {thing} [{gap}|missing] [from|in] the {run}",
            f"which {thing} is {gap} [in|from] the {run}",
        )
    if move == "next":
        do = (
            f"continue the {run} with [its|the] next {thing}|{{give}} the {thing} that [comes next|follows] in"
            f" the {run}"
        )
        do += f"|{{give}} the next {thing} of the {run}|extend the {run} by one {thing} and {{give}} [it|only that]"
        return Wording(
            given,
            do,
            f"the next {thing}[ of the {run}|]|the {thing} that [comes next|follows the last one]",
            f"[which|what] {thing} [comes next|follows][ in the {run}|]",
        )
    return Wording(
        given,
        f"{{give}} the {thing} that [comes [right |just |]before|precedes] the {run}|{{give}} the {thing}"
        f" before the first one of the {run}",
        f"the {thing} [right |just |]before the [first one|start] of the {run}|the {thing} preceding the {run}",
        f"[which|what] {thing} comes [right |just |]before the first one [of|in] the {run}",
    )


def _run(step: int, move: str) -> Source:
    def source(rng: random.Random) -> str:
        size, length = abs(step), rng.randint(3, 4)
        start = rng.randint(2 if step > 0 else 7, 60 if size < 20 else 30) * size
        run = [start + place * step for place in range(length)]
        if move == "missing":
            gap = rng.randint(1, length - 2)
            return ", ".join("_" if place == gap else str(value) for place, value in enumerate(run))
        return ", ".join(map(str, run))

    return source


def _after(step: int, move: str) -> Callable[[str], str]:
    def answer(text: str) -> str:
        items = text.split(", ")
        if move == "missing":
            return str(int(items[items.index("_") - 1]) + step)
        values = [int(item) for item in items]
        if any(right - left != step for left, right in pairwise(values)):
            raise ValueError(f"not in steps of {step}: {text!r}")
        return str(values[-1] + step if move == "next" else values[0] - step)

    return answer


def _cycle(names: tuple[str, ...]) -> tuple[Source, Callable[[str], str]]:
    def source(rng: random.Random) -> str:
        start, length = rng.randrange(len(names)), rng.randint(2, 4)
        return ", ".join(names[(start + place) % len(names)] for place in range(length))

    return source, lambda text: names[(names.index(text.split(", ")[-1]) + 1) % len(names)]


def _case(letter: str, text: str) -> str:
    return letter.upper() if text.isupper() else letter


def _letter(rng: random.Random) -> str:
    letter = rng.choice(_LETTERS[1:-1])
    return rng.choice((letter, letter.upper()))


def _shifted(by: int) -> Callable[[str], str]:
    return lambda text: _case(_LETTERS[_LETTERS.index(text.lower()) + by], text)


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family."""
    rows: list[tuple[str, str, Source, Callable[[str], str]]] = []
    for step in (3, 4, 6, 10, 20, 100):
        rows += [(move, f"by_{step}", _run(step, move), _after(step, move)) for move in ("next", "previous")]
    for step in (1, 2, 5, 10):
        rows.append(("missing", f"by_{step}" if step > 1 else "number", _run(step, "missing"), _after(step, "missing")))
    for step in (1, 3, 10, 100):
        rows.append(("next", f"down_{step}", _run(-step, "next"), _after(-step, "next")))
    rows += [("next", f"run_of_{kind}s", *_cycle(names)) for kind, names in _CYCLES.items()]
    rows.append(("next", "single_letter", _letter, _shifted(1)))
    rows.append(("previous", "single_letter", _letter, _shifted(-1)))
    return tuple(
        further(FAMILY, f"{move}_{kind}", {"move": move, "kind": kind}, source, answer, wording)
        for move, kind, source, answer in rows
    )
