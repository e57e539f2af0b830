"""Naming the kind of a word, and saying whether a word is of a kind."""

import random

from icmlora_cli.tasks.builtin.inflect import article
from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.builtin.words_kinds import KIND_PLURALS, KINDS
from icmlora_cli.tasks.examples import Example

MEMBER_FAMILY = "membership"
NAME_FAMILY = "category_name"
HELD_OUT = ("is_fruit_true_false", "category_plural_of_list")

_REPLIES = {"yes_no": ("yes", "no"), "true_false": ("true", "false")}
_SHADES = ("", "", "pale ", "dark ", "light ", "bright ")
_MEMBERS = (
    *(("animal", "yes_no"), ("fruit", "yes_no"), ("color", "yes_no")),
    *(("animal", "true_false"), ("fruit", "true_false")),
)
_MEMBER_TEMPLATES = (
    "Answer {yes} if the input names {a} {kind}, otherwise {no}.",
    "Say whether the given word stands for {a} {kind}, with {yes} or {no}.",
    "Decide if the input is {a} {kind} and reply {yes} or {no}.",
    "Reply {yes} for {kinds} and {no} for anything else.",
    "Write {yes} when the word belongs to the {kinds} and {no} when it does not.",
)
_NAME_TEMPLATES = (
    "Name the category of {given}: {choices}.",
    "Say which of these kinds fits {given}: {choices}.",
    "Classify {given} as one of {choices}.",
    "Answer with one label out of {choices} for {given}.",
    "Choose the label for {given} from {choices}.",
)
_GIVEN = {"word": "the word", "list": "all the items of the list"}


def _draw_member(kind: str, reply: str) -> Draw:
    yes, no = _REPLIES[reply]
    others = tuple(word for other, words in KINDS.items() if other not in (kind, "city") for word in words)

    def draw(rng: random.Random) -> Example:
        belongs = rng.random() < 0.5
        word = rng.choice(KINDS[kind] if belongs else others)
        return Example(rng.choice(_SHADES) + word, yes if belongs else no)

    return draw


def _draw_name(unit: str, labels: dict[str, str]) -> Draw:
    def draw(rng: random.Random) -> Example:
        kind = rng.choice(tuple(KINDS))
        words = rng.sample(KINDS[kind], 1 if unit == "word" else 3)
        return Example(", ".join(words), labels[kind])

    return draw


def _member_task(kind: str, reply: str) -> BuiltinTask:
    yes, no = _REPLIES[reply]
    text = fill(_MEMBER_TEMPLATES, yes=yes, no=no, a=article(kind), kind=kind, kinds=KIND_PLURALS[kind])
    axes = {"kind": kind, "reply": reply}
    return make(MEMBER_FAMILY, f"is_{kind}_{reply}", axes, text, _draw_member(kind, reply), HELD_OUT)


def _name_task(unit: str, number: str) -> BuiltinTask:
    labels = KIND_PLURALS if number == "plural" else {kind: kind for kind in KINDS}
    *most, last = labels.values()
    text = fill(_NAME_TEMPLATES, given=_GIVEN[unit], choices=f"{', '.join(most)} or {last}")
    name = f"category_of_{unit}" if number == "singular" else f"category_plural_of_{unit}"
    axes = {"unit": unit, "number": number}
    return make(NAME_FAMILY, name, axes, text, _draw_name(unit, labels), HELD_OUT)


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of both families."""
    named = tuple(_name_task(unit, number) for unit in _GIVEN for number in ("singular", "plural"))
    return (*(_member_task(*row) for row in _MEMBERS), *named)
