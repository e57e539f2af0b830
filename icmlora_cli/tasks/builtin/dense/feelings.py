"""More labels for the feeling of a word or a sentence."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask
from icmlora_cli.tasks.builtin.words_sentiment import NEGATIVE, POSITIVE, STRENGTHS, SUBJECTS

FAMILY = "sentiment"

_LABELS = {
    "sentiment": ("positive", "negative"),
    "good_bad": ("good", "bad"),
    "thumbs": ("thumbs up", "thumbs down"),
    "signs": ("+", "-"),
    "short": ("pos", "neg"),
    "letters": ("P", "N"),
    "nice_nasty": ("nice", "nasty"),
    "digits": ("1", "0"),
    "like": ("like", "dislike"),
    "happy": ("happy", "unhappy"),
    "yes_no": ("yes", "no"),
    "praise": ("praise", "complaint"),
    "upper": ("POSITIVE", "NEGATIVE"),
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    plus, minus = _LABELS[axes["labels"]]
    sentence = axes["unit"] == "sentence"
    unit = (
        "[the sentence|the sentence|the review|the given sentence]"
        if sentence
        else "[the word|the word or phrase|the input]"
    )
    reply = "[answer|reply|write|output|say|respond with|give]"
    favorable = "[sounds|is] [positive|favorable|pleasant]"
    bad = "[otherwise|if it [sounds|is] [negative|unfavorable|unpleasant]|if not]"
    return Wording(
        "a [short |]sentence|a one-sentence review" if sentence else "a word|a word or short phrase",
        f"{reply} {plus} if {unit} {favorable}[,| and] {minus} {bad}|[classify|label] the [sentiment|feeling"
        f"|tone] of {unit} as {plus} (favorable) or {minus} (unfavorable)"
        f"|[decide|judge|tell] whether {unit} is favorable or not[:| and reply] {plus} or {minus}",
        f'"{plus}" for a [positive|favorable] [feeling|tone], "{minus}" for a/an [negative|unfavorable] one',
        f"is {unit} [positive|favorable] ({plus}) or [negative|unfavorable] ({minus})",
    )


def _draw(unit: str) -> Source:
    def source(rng: random.Random) -> str:
        text = rng.choice(STRENGTHS) + rng.choice(POSITIVE if rng.random() < 0.5 else NEGATIVE)
        return f"the {rng.choice(SUBJECTS)} was {text}" if unit == "sentence" else text

    return source


def _answer(plus: str, minus: str, unit: str) -> Callable[[str], str]:
    good, bad = frozenset(POSITIVE), frozenset(NEGATIVE)

    def answer(text: str) -> str:
        word = text.split(" ")[-1]
        if (word not in good and word not in bad) or text.startswith("the ") != (unit == "sentence"):
            raise ValueError(f"unknown feeling: {text!r}")
        return plus if word in good else minus

    return answer


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family."""
    return tuple(
        further(
            FAMILY, f"{label}_{unit}", {"labels": label, "unit": unit}, _draw(unit), _answer(plus, minus, unit), wording
        )
        for label, (plus, minus) in tuple(_LABELS.items())[3:]
        for unit in ("word", "sentence")
    )
