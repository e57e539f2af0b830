"""Small sums, in digits and in English words."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.numbers import number_words
from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.examples import Example

FAMILY = "arithmetic"
HELD_OUT = ("double_words", "subtract_words")

_SAY: dict[str, tuple[str, str]] = {
    "add": ("add the two numbers", "the sum of the two numbers"),
    "subtract": ("subtract the second number from the first", "the first number minus the second"),
    "double": ("double the number", "twice the given number"),
    "increment": ("add one to the number", "the number that is one more than the input"),
    "decrement": ("take one away from the number", "the number that is one less than the input"),
}
_UNARY: dict[str, Callable[[int], int]] = {
    "double": lambda value: 2 * value,
    "increment": lambda value: value + 1,
    "decrement": lambda value: value - 1,
}
_SIGNS = {
    ("add", "digits"): "+",
    ("add", "words"): "plus",
    ("subtract", "digits"): "-",
    ("subtract", "words"): "minus",
}
_FORMS: dict[str, tuple[str, Callable[[int], str]]] = {
    "digits": ("digits", str),
    "words": ("English words", number_words),
}
_TEMPLATES = (
    "{do} and answer in {form}.",
    "Work out {result}, using {form} for the answer.",
    "Give {result} in {form}.",
    "Compute {result}, with every number written in {form}.",
    "Read the input in {form}, {do}, and reply in the same way.",
    "Output {result} in {form} and nothing else.",
)


def _draw_binary(op: str, form: str) -> Draw:
    sign, write = _SIGNS[op, form], _FORMS[form][1]

    def draw(rng: random.Random) -> Example:
        left, right = rng.randint(1, 50), rng.randint(1, 50)
        if op == "subtract":
            left, right = max(left, right), min(left, right)
        result = left + right if op == "add" else left - right
        return Example(f"{write(left)} {sign} {write(right)}", write(result))

    return draw


def _draw_unary(op: str, form: str) -> Draw:
    write, compute = _FORMS[form][1], _UNARY[op]

    def draw(rng: random.Random) -> Example:
        value = rng.randint(1, 400)
        return Example(write(value), write(compute(value)))

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{op}_{form}",
            {"operation": op, "form": form},
            fill(_TEMPLATES, do=do, result=result, form=written),
            _draw_unary(op, form) if op in _UNARY else _draw_binary(op, form),
            HELD_OUT,
        )
        for op, (do, result) in _SAY.items()
        for form, (written, _) in _FORMS.items()
    )
