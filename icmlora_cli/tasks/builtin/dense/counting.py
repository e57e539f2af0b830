"""More things to count: one fixed letter, consonants, digits, items of a kind."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.numbers import number_words
from icmlora_cli.tasks.builtin.types import BuiltinTask, chosen, joined
from icmlora_cli.tasks.builtin.words import ALL_WORDS, SHORT_NOUNS
from icmlora_cli.tasks.builtin.words_kinds import ANIMALS, CITIES, COLORS, FRUITS

FAMILY = "counting"

_LETTERS = tuple("aeiorst")
_KINDS = {"animals": ANIMALS[:50], "fruits": FRUITS[:25], "colors": COLORS[:25], "cities": CITIES[:40]}
_WORDS_TO_COUNT = ("red", "dog", "yes", "cat")
_PLAIN = tuple(word for word in SHORT_NOUNS if word not in ("calf", "ox", "berry", "hero", "city"))
_NAMED = {
    "words": ("[words|words|single words]", "the phrase", "a phrase|some words|a few words"),
    "letters": ("letters", "the word", "a word|one word"),
    "vowels": ("vowels[| (a, e, i, o, u)]", "the word", "a word|one word"),
    "given_letter": (
        "[occurrences|copies] of the [named|given] letter",
        "the word",
        "a letter and a word",
    ),
    "items": (
        "[items|items|entries|elements]",
        "the [comma-separated |]list",
        "a [comma-separated |]list|some items separated by commas",
    ),
    "consonants": ("consonants", "the word", "a word|one word"),
    "digits": ("digits", "the number", "a [whole |]number"),
    "names": ("names", "the [comma-separated |]list", "a list of [city |]names"),
    "numbers": ("numbers", "the [comma-separated |]list", "a list of numbers"),
    "plus": ("[numbers|terms]", "the sum", "a sum"),
    "semicolon_items": ("items", "the [semicolon-separated |]list", "a list with semicolons between its items"),
}
_FORMS = {
    "digits": "in digits|as a number|as digits|in figures",
    "words": "in [English |]words|spelled out[ in words|]|as a/an [English |]number word",
}


def _named(counted: str) -> tuple[str, str, str]:
    if counted in _NAMED:
        return _NAMED[counted]
    kind, _, what = counted.partition("_")
    if kind == "letter":
        return f'[times the letter "{what}" [occurs|appears]]', "the word", "a word|one word"
    if kind == "word":
        return f'[times the word "{what}" [occurs|appears]]', "the text", "some words|a few words"
    return f"{what}", "the [comma-separated |]list", "a [comma-separated |]list of [words|things]"


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    things, where, given = _named(axes["counted"])
    things, where = f"[{things}]", f"[{where}]"
    form = f"[{_FORMS[axes['answer']]}]"
    written = f" {form}" if axes["answer"] == "words" else f"[ {form}|]"
    give = "[write|give|output] the [count|total|number]"
    there, are = ("", "") if "times" in things else (" there are", " are there")
    counting = f"the number of {things}"
    return Wording(
        given,
        f"count the {things} in {where} and {give}{written}|count how many {things}{there} in {where} and"
        f" answer{written}"
        f"|[say|tell] how many {things}{there} in {where}{' and answer ' + form if written != f'[ {form}|]' else ''}",
        f"{counting} in {where}[,|]{written}|the count of {things} in {where}[,|]{written}",
        f"how many {things}{are} in"
        f" {where}{f' (answer {form})' if axes['answer'] == 'words' else f'[ (answer {form})|]'}",
    )


def _count_kind(words: tuple[str, ...]) -> Callable[[str], int]:
    known = frozenset(words)
    return lambda text: sum(item in known for item in text.split(", "))


def _mixed(words: tuple[str, ...]) -> Source:
    def source(rng: random.Random) -> str:
        inside = rng.randint(0, 4)
        items = rng.sample(words, inside) + rng.sample(_PLAIN, rng.randint(1 if inside < 2 else 0, 3))
        rng.shuffle(items)
        return ", ".join(items)

    return source


def _with_word(word: str) -> Source:
    def source(rng: random.Random) -> str:
        items = [word] * rng.randint(0, 4) + rng.sample(SHORT_NOUNS, rng.randint(1, 3))
        rng.shuffle(items)
        return " ".join(items)

    return source


def _likely(letter: str) -> Source:
    holding = [word for word in ALL_WORDS if letter in word]
    double = [word for word in holding if word.count(letter) > 1]
    return lambda rng: rng.choice(rng.choice((ALL_WORDS, holding, double)))


def _counter(part: str) -> Callable[[str], int]:
    return lambda text: text.count(part)


def _counter_of_word(word: str) -> Callable[[str], int]:
    return lambda text: text.split().count(word)


def _rows() -> list[tuple[str, Source, Callable[[str], int], tuple[str, ...]]]:
    both, digits = ("digits", "words"), ("digits",)
    rows: list[tuple[str, Source, Callable[[str], int], tuple[str, ...]]] = [
        ("consonants", chosen(ALL_WORDS), lambda text: sum(letter not in "aeiou" for letter in text), both),
        ("digits", lambda rng: str(rng.randint(1, 10 ** rng.randint(1, 6))), len, both),
        ("names", _names_of, lambda text: text.count(",") + 1, both),
        ("numbers", _numbers_of, lambda text: text.count(",") + 1, both),
        ("plus", lambda rng: " + ".join(str(rng.randint(1, 9)) for _ in range(rng.randint(2, 6))), _terms, both),
        ("semicolon_items", joined(SHORT_NOUNS, 1, 7, "; "), lambda text: text.count(";") + 1, both),
        ("words", joined(SHORT_NOUNS, 1, 8, " "), lambda text: len(text.split()), ("words",)),
    ]
    rows += [(f"letter_{letter}", _likely(letter), _counter(letter), digits) for letter in _LETTERS]
    rows += [(f"word_{word}", _with_word(word), _counter_of_word(word), digits) for word in _WORDS_TO_COUNT]
    rows += [(f"kind_{kind}", _mixed(words), _count_kind(words), both) for kind, words in _KINDS.items()]
    return rows


def _terms(text: str) -> int:
    return text.count("+") + 1


def _names_of(rng: random.Random) -> str:
    return ", ".join(rng.sample(CITIES, rng.randint(1, 6)))


def _numbers_of(rng: random.Random) -> str:
    return ", ".join(str(rng.randint(1, 99)) for _ in range(rng.randint(1, 7)))


def _written(count: Callable[[str], int], form: str) -> Callable[[str], str]:
    return lambda text: number_words(count(text)) if form == "words" else str(count(text))


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; none counts vowels, whose form in words is held out."""
    return tuple(
        further(
            FAMILY,
            f"count_{counted}" + ("_in_words" if form == "words" else ""),
            {"counted": counted, "answer": form},
            source,
            _written(count, form),
            wording,
        )
        for counted, source, count, forms in _rows()
        for form in forms
    )
