"""Picking the item at a place of a comma-separated list."""

import random

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.builtin.words import NUMBER_NAMES, SHORT_NOUNS
from icmlora_cli.tasks.examples import Example

FAMILY = "pick_from_list"
HELD_OUT = ("pick_first_of_4", "pick_last_of_4", "pick_second_of_5")

_COUNTS = {"first": (3, 4, 5), "last": (3, 4, 5), "second": (4, 5), "third": (4, 5), "middle": (3, 5)}
_PLACES = {
    "first": "at the start",
    "last": "at the end",
    "second": "right after the first one",
    "third": "right after the second one",
    "middle": "exactly in the middle",
}
_TEMPLATES = (
    "From a comma-separated list of {n} items, output the {item} item.",
    "Given {n} items separated by commas, return only the {item} one.",
    "Read the list of {n} words and answer with its {item} element.",
    "Pick the {item} entry out of a {n}-item list.",
    "Copy the {item} of the {n} comma-separated words and nothing else.",
    "Answer with the word that stands {place} in a list of {n}.",
)


def _index(item: str, count: int) -> int:
    return {"first": 0, "second": 1, "third": 2, "last": count - 1, "middle": count // 2}[item]


def _draw(item: str, count: int) -> Draw:
    def draw(rng: random.Random) -> Example:
        words = rng.sample(SHORT_NOUNS, count)
        return Example(", ".join(words), words[_index(item, count)])

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"pick_{item}_of_{count}",
            {"item": item, "count": str(count)},
            fill(_TEMPLATES, item=item, n=NUMBER_NAMES[count], place=_PLACES[item]),
            _draw(item, count),
            HELD_OUT,
        )
        for item, counts in _COUNTS.items()
        for count in counts
    )
