"""Saying whether a word or a short sentence is positive or negative."""

import random

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.builtin.words_sentiment import NEGATIVE, POSITIVE, STRENGTHS, SUBJECTS
from icmlora_cli.tasks.examples import Example

FAMILY = "sentiment"
HELD_OUT = ("thumbs_sentence",)

_LABELS = {
    "sentiment": ("positive", "negative"),
    "good_bad": ("good", "bad"),
    "thumbs": ("thumbs up", "thumbs down"),
}
_UNITS = {"word": "the word or short phrase", "sentence": "the sentence"}
_TEMPLATES = (
    "Say whether {unit} expresses a nice feeling ({plus}) or an unpleasant one ({minus}).",
    "Classify the feeling of {unit} as {plus} or {minus}.",
    "Answer {plus} if {unit} sounds favorable and {minus} if it sounds unfavorable.",
    "Judge the tone of {unit} and reply with {plus} or {minus}.",
    "Label {unit} {plus} or {minus} by its sentiment.",
)


def _draw(label: str, unit: str) -> Draw:
    plus, minus = _LABELS[label]

    def draw(rng: random.Random) -> Example:
        favorable = rng.random() < 0.5
        text = rng.choice(STRENGTHS) + rng.choice(POSITIVE if favorable else NEGATIVE)
        if unit == "sentence":
            text = f"the {rng.choice(SUBJECTS)} was {text}"
        return Example(text, plus if favorable else minus)

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{label}_{unit}",
            {"labels": label, "unit": unit},
            fill(_TEMPLATES, unit=named, plus=plus, minus=minus),
            _draw(label, unit),
            HELD_OUT,
        )
        for label, (plus, minus) in _LABELS.items()
        for unit, named in _UNITS.items()
    )
