"""The one item of another kind in a short list."""

import random

from icmlora_cli.tasks.builtin.inflect import article
from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.builtin.words import NUMBER_NAMES
from icmlora_cli.tasks.builtin.words_kinds import KIND_PLURALS, KINDS
from icmlora_cli.tasks.examples import Example

FAMILY = "odd_one_out"
HELD_OUT = ("fruit_among_colors_3", "city_among_animals_3")
COMMONEST = 32
"""Each kind is drawn from its commonest words, which come first in its list."""

_TASKS = (
    *(("color", "animal", 3), ("color", "animal", 4), ("animal", "color", 3), ("animal", "fruit", 3)),
    *(("fruit", "animal", 3), ("fruit", "animal", 4), ("fruit", "color", 3), ("color", "fruit", 4)),
    *(("city", "fruit", 3), ("city", "animal", 3), ("animal", "city", 4)),
)
_TEMPLATES = (
    "Output the one {odd} hidden among the {among} in a list of {n}.",
    "Out of {n} items, all but one are {among}, so name the {odd}.",
    "Find the word that is {a} {odd} while the other {rest} are {among}.",
    "In a {n}-item list of {among}, say which item is really {a} {odd}.",
    "Pick the odd one out of {n} comma-separated words, the {odd} among {among}.",
)


def _draw(odd: str, among: str, count: int) -> Draw:
    odds, others = KINDS[odd][:COMMONEST], KINDS[among][:COMMONEST]

    def draw(rng: random.Random) -> Example:
        answer = rng.choice(odds)
        items = rng.sample(others, count - 1)
        items.insert(rng.randrange(count), answer)
        return Example(", ".join(items), answer)

    return draw


def _build(odd: str, among: str, count: int) -> BuiltinTask:
    plural = KIND_PLURALS[among]
    words = {"odd": odd, "a": article(odd), "among": plural}
    text = fill(_TEMPLATES, n=NUMBER_NAMES[count], rest=NUMBER_NAMES[count - 1], **words)
    axes = {"odd": odd, "among": among, "count": str(count)}
    return make(FAMILY, f"{odd}_among_{plural}_{count}", axes, text, _draw(odd, among, count), HELD_OUT)


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(_build(*row) for row in _TASKS)
