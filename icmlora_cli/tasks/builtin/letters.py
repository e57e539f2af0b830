"""The letter at a place of a word, in upper or lower case."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, chosen, fill, make, mapped
from icmlora_cli.tasks.builtin.words import ALL_WORDS

FAMILY = "letters"
HELD_OUT = ("last_letter_upper", "second_letter_lower")

_TAKE: dict[str, Callable[[str], str]] = {
    "first_letter": lambda word: word[0],
    "second_letter": lambda word: word[1],
    "last_letter": lambda word: word[-1],
    "first_two_letters": lambda word: word[:2],
}
_CASES = {"upper": "uppercase", "lower": "lowercase"}
_TEMPLATES = (
    "Output the {part} of the word in {case}.",
    "Give the {part} of the input word, written in {case}.",
    "Answer with nothing but the {part} of the word, using {case}.",
    "Take the {part} of the given word and write the result in {case}.",
    "Find the {part} of the word and reply in {case}.",
    "Return only the {part} in {case} for each word.",
)


def _draw(part: str, case: str) -> Draw:
    take = _TAKE[part]
    if case == "upper":
        return mapped(chosen(ALL_WORDS), lambda word: take(word).upper())
    return mapped(chosen([word.upper() for word in ALL_WORDS]), lambda word: take(word).lower())


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{part}_{case}",
            {"part": part, "case": case},
            fill(_TEMPLATES, part=part.replace("_", " "), case=written),
            _draw(part, case),
            HELD_OUT,
        )
        for part in _TAKE
        for case, written in _CASES.items()
    )
