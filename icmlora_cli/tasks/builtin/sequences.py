"""The element after, or before, a short run of numbers or letters."""

import random

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.examples import Example

FAMILY = "sequences"
HELD_OUT = ("previous_even", "previous_by_five")

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_KINDS = {
    "number": "counting numbers",
    "even": "even numbers",
    "odd": "odd numbers",
    "by_five": "multiples of five",
    "letter": "alphabet letters",
}
_STEPS = {"number": (1, 0), "even": (2, 0), "odd": (2, 1), "by_five": (5, 0)}
_MOVES = {
    "next": ("comes right after the last", "forward from its end", "following"),
    "previous": ("comes right before the first", "backward from its start", "preceding"),
}
_TEMPLATES = (
    "Look at the run of {kind} and say which one {where}.",
    "Given consecutive {kind}, output only the {adjective} one.",
    "Extend the run of {kind} by one step {direction} and output only the new element.",
    "Answer with the element that {where} in this series of {kind}.",
    "Write the one {adjective} element for the listed {kind}.",
)


def _draw_numbers(move: str, kind: str) -> Draw:
    step, offset = _STEPS[kind]

    def draw(rng: random.Random) -> Example:
        start, length = rng.randint(2, 190), rng.randint(2, 4)
        run = [(start + place) * step + offset for place in range(-1, length + 1)]
        return Example(", ".join(map(str, run[1:-1])), str(run[-1] if move == "next" else run[0]))

    return draw


def _draw_letters(move: str) -> Draw:
    def draw(rng: random.Random) -> Example:
        length = rng.randint(2, 6)
        start = rng.randint(0, len(_ALPHABET) - length - 1)
        run = _ALPHABET[start : start + length + 1]
        run = run.upper() if rng.random() < 0.5 else run
        shown, answer = (run[:-1], run[-1]) if move == "next" else (run[1:], run[0])
        return Example(", ".join(shown), answer)

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{move}_{kind}",
            {"move": move, "kind": kind},
            fill(_TEMPLATES, kind=named, where=where, direction=direction, adjective=adjective),
            _draw_letters(move) if kind == "letter" else _draw_numbers(move, kind),
            HELD_OUT,
        )
        for kind, named in _KINDS.items()
        for move, (where, direction, adjective) in _MOVES.items()
    )
