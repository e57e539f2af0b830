"""Inflecting nouns, verbs and adjectives, alone and inside a short phrase."""

import random
from collections.abc import Callable, Sequence

from icmlora_cli.tasks.builtin.inflect import (
    article,
    comparative,
    ing,
    past,
    plural,
    superlative,
    third_person,
)
from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, chosen, fill, make, mapped
from icmlora_cli.tasks.builtin.words_adjectives import LONG_ADJECTIVES, SHORT_ADJECTIVES, UN_ADJECTIVES
from icmlora_cli.tasks.builtin.words_kinds import ANIMALS, FRUITS
from icmlora_cli.tasks.builtin.words_nouns import NOUNS
from icmlora_cli.tasks.builtin.words_verbs import VERBS
from icmlora_cli.tasks.examples import Example

FAMILY = "morphology"
HELD_OUT = ("ing_phrase", "superlative_phrase")

_NOUNS = tuple(dict.fromkeys(NOUNS + ANIMALS + FRUITS))
_ADJECTIVES = SHORT_ADJECTIVES + LONG_ADJECTIVES
_SUBJECTS = ("I", "you", "we", "they")

_WORD: dict[str, tuple[str, str, Sequence[str], Callable[[str], str]]] = {
    "plural": ("singular noun", "plural form", _NOUNS, plural),
    "past": ("verb", "simple past tense", VERBS, past),
    "ing": ("verb", "-ing form", VERBS, ing),
    "third_person": ("verb", "form used after she, as in she walks", VERBS, third_person),
    "comparative": ("adjective", "comparative", _ADJECTIVES, comparative),
    "superlative": ("adjective", "superlative", _ADJECTIVES, superlative),
    "negated": ("adjective", "opposite with un- in front", UN_ADJECTIVES, lambda word: f"un{word}"),
}
_WORD_TEMPLATES = (
    "Write the {result} of the {base}.",
    "The input is one {base}, so reply with its {result}.",
    "Turn the {base} into its {result}.",
    "Answer with the {result} that belongs to the {base}.",
    "For the given {base}, output its {result} and nothing else.",
)
_PHRASE = {
    "plural": 'change "one" to "two" and put the noun in the plural',
    "past": "put the verb in the simple past tense",
    "ing": 'put the verb in the present continuous with "am" or "are"',
    "third_person": 'change the subject to "she" and make the verb agree',
    "comparative": 'put the adjective in the comparative after "a"',
    "superlative": 'put the adjective in the superlative after "the"',
}
_PHRASE_TEMPLATES = (
    "In the short phrase, {change}.",
    "Rewrite the phrase as follows: {change}.",
    "Take the given phrase and {change}.",
    "{change}, and leave the other words of the phrase as they are.",
    "Read the phrase, {change}, and output the whole result.",
)


def _noun_phrase(rng: random.Random) -> Example:
    noun = rng.choice(_NOUNS)
    return Example(f"one {noun}", f"two {plural(noun)}")


def _verb_phrase(form: str) -> Draw:
    def draw(rng: random.Random) -> Example:
        subject, verb = rng.choice(_SUBJECTS), rng.choice(VERBS)
        answers = {
            "past": f"{subject} {past(verb)}",
            "ing": f"{subject} {'am' if subject == 'I' else 'are'} {ing(verb)}",
            "third_person": f"she {third_person(verb)}",
        }
        return Example(f"{subject} {verb}", answers[form])

    return draw


def _adjective_phrase(form: str) -> Draw:
    def draw(rng: random.Random) -> Example:
        adjective, noun = rng.choice(_ADJECTIVES), rng.choice(NOUNS)
        more = comparative(adjective)
        answers = {
            "comparative": f"{article(more)} {more} {noun}",
            "superlative": f"the {superlative(adjective)} {noun}",
        }
        return Example(f"{article(adjective)} {adjective} {noun}", answers[form])

    return draw


def _draw_phrase(form: str) -> Draw:
    if form == "plural":
        return _noun_phrase
    return _adjective_phrase(form) if form in ("comparative", "superlative") else _verb_phrase(form)


def _word_task(form: str) -> BuiltinTask:
    base, result, words, answer = _WORD[form]
    text = fill(_WORD_TEMPLATES, base=base, result=result)
    draw = mapped(chosen(words), answer)
    return make(FAMILY, f"{form}_word", {"form": form, "unit": "word"}, text, draw, HELD_OUT)


def _phrase_task(form: str) -> BuiltinTask:
    text = fill(_PHRASE_TEMPLATES, change=_PHRASE[form])
    axes = {"form": form, "unit": "phrase"}
    return make(FAMILY, f"{form}_phrase", axes, text, _draw_phrase(form), HELD_OUT)


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return (*map(_word_task, _WORD), *map(_phrase_task, _PHRASE))
