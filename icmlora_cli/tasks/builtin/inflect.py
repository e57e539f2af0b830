"""English inflection by rule, with the irregular forms of the word lists."""

from icmlora_cli.tasks.builtin.words_adjectives import (
    DOUBLING_ADJECTIVES,
    IRREGULAR_DEGREES,
    LONG_ADJECTIVES,
)
from icmlora_cli.tasks.builtin.words_nouns import IRREGULAR_PLURALS
from icmlora_cli.tasks.builtin.words_verbs import DOUBLING_VERBS, IRREGULAR_PAST

_VOWELS = "aeiou"
_HISSING = ("s", "x", "z", "ch", "sh")


def _consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in _VOWELS


def _add_s(word: str) -> str:
    if word.endswith(_HISSING):
        return f"{word}es"
    return f"{word[:-1]}ies" if _consonant_y(word) else f"{word}s"


def plural(noun: str) -> str:
    """Return the plural of a noun of the word lists."""
    return IRREGULAR_PLURALS.get(noun) or _add_s(noun)


def third_person(verb: str) -> str:
    """Return the form that goes with "she"."""
    irregular = {"have": "has", "do": "does", "go": "goes"}
    return irregular.get(verb) or _add_s(verb)


def past(verb: str) -> str:
    """Return the past tense of a verb of the word lists."""
    if verb in IRREGULAR_PAST:
        return IRREGULAR_PAST[verb]
    if verb.endswith("e"):
        return f"{verb}d"
    if _consonant_y(verb):
        return f"{verb[:-1]}ied"
    return f"{verb}{verb[-1]}ed" if verb in DOUBLING_VERBS else f"{verb}ed"


def ing(verb: str) -> str:
    """Return the -ing form of a verb of the word lists."""
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return f"{verb[:-1]}ing"
    return f"{verb}{verb[-1]}ing" if verb in DOUBLING_VERBS else f"{verb}ing"


def _degree(adjective: str, ending: str, place: int, more: str) -> str:
    if adjective in IRREGULAR_DEGREES:
        return IRREGULAR_DEGREES[adjective][place]
    if adjective in LONG_ADJECTIVES:
        return f"{more} {adjective}"
    if adjective.endswith("e"):
        return f"{adjective}{ending[1:]}"
    if _consonant_y(adjective) and adjective != "shy":
        return f"{adjective[:-1]}i{ending}"
    return f"{adjective}{adjective[-1] if adjective in DOUBLING_ADJECTIVES else ''}{ending}"


def comparative(adjective: str) -> str:
    """Return the comparative of an adjective of the word lists."""
    return _degree(adjective, "er", 0, "more")


def superlative(adjective: str) -> str:
    """Return the superlative of an adjective of the word lists."""
    return _degree(adjective, "est", 1, "most")


def article(following: str) -> str:
    """Return "a" or "an" for the word that follows it."""
    return "an" if following[0] in _VOWELS else "a"
