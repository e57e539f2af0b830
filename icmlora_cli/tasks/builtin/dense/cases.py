"""More changes of case: of one word of a phrase, of a list, of a sentence."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further, where
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask, chosen, joined
from icmlora_cli.tasks.builtin.words import ALL_WORDS, SHORT_NOUNS
from icmlora_cli.tasks.builtin.words_kinds import FIRST_NAMES

FAMILY = "case"

_HOW = {
    "uppercase": "in [uppercase|upper case|capital letters|capitals|all caps|block letters]",
    "lowercase": "in [lowercase|lower case|small letters]",
    "capitalize": "with a/an [capital|uppercase] first letter|with its first letter [capitalized|in uppercase]",
}
_VERBS = {
    "uppercase": "[uppercase|put in capitals|turn into uppercase]",
    "lowercase": "[lowercase|put in small letters|turn into lowercase]",
    "capitalize": "[capitalize|start with a capital letter]",
}
_UNITS = {
    "word": ("a/an {shown}word|one word", "the word|the given word|the input word"),
    "phrase": ("a/an {shown}phrase|some {shown}words|a few words", "the phrase|every word of the phrase|all the words"),
    "list": (
        "a comma-separated list|a list of words",
        "every word of the list|each item of the list|all items of the list",
    ),
    "first_word": ("a phrase|a few words", "[only|just] the first word of the phrase"),
    "last_word": ("a phrase|a few words", "[only|just] the last word of the phrase"),
    "last_letter": ("a word|one word", "[only|just] the last letter of the word"),
    "name": ("a name|someone's first name", "the name|the given name"),
}
_KEEP = {"first_word": "the first word only", "last_word": "the last word only"}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    change, unit = axes["change"], axes["unit"]
    shown = {"uppercase": "", "lowercase": "[uppercase |]", "capitalize": "[lowercase |]"}[change]
    given, named = _UNITS[unit]
    named = f"[{named}]"
    if unit in ("first_word", "last_word", "last_letter"):
        part = unit.replace("_", " ")
        rest = "[, and leave the rest as it is|, keeping the rest as it is|]"
        how = {
            "uppercase": f"with {named} in [uppercase|capital letters|capitals]",
            "capitalize": f"with a capital first letter on {named}",
        }[change]
        whole = "word" if unit == "last_letter" else "phrase"
        return Wording(
            input=given,
            do=f"{_VERBS[change]} {named}{rest}|{{rewrite}} the {whole} {how}{rest}",
            result=f"the [whole |]{whole} {how}|the {whole}, its {part}"
            f" {_HOW['uppercase'] if change == 'uppercase' else 'capitalized'}",
        )
    if change == "capitalize" and unit in ("phrase", "list"):
        how = (
            "with a/an [capital|uppercase] first letter on [every|each] word|[with each word capitalized|in title case]"
        )
        whole = f"the {unit}"
        do = f"{{rewrite}} {whole} [{how}]|capitalize [every|each] word of {whole}|put {whole} in title case"
        return Wording(given.replace("{shown}", shown), do, f"{whole} [{how}]|{whole}, every word capitalized")
    how = f"[{_HOW[change]}]"
    do = f"{{rewrite}} {named} {how}|{{rewrite}} {named} {how}|{_make(change, named)}"
    return Wording(given.replace("{shown}", shown), do, f"{named} {how}|the same {unit} {how}")


def _make(change: str, named: str) -> str:
    if change == "capitalize":
        return f"capitalize [the first letter of |]{named}"
    letters = "uppercase|upper case|capitals" if change == "uppercase" else "lowercase|lower case|small letters"
    return f"[put|convert|change|turn] {named} [to|into] [{letters}]|{change} {named}"


def _first(text: str, change: Callable[[str], str]) -> str:
    head, space, rest = text.partition(" ")
    return f"{change(head)}{space}{rest}"


def _last(text: str, change: Callable[[str], str]) -> str:
    head, space, tail = text.rpartition(" ")
    return f"{head}{space}{change(tail)}"


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; none puts a whole phrase in lower case, which is held out."""
    phrase, listed = joined(SHORT_NOUNS, 2, 4, " "), joined(SHORT_NOUNS, 2, 4)
    word = chosen([word for word in ALL_WORDS if len(word) > 2])
    rows: tuple[tuple[str, str, Source, Callable[[str], str]], ...] = (
        ("uppercase", "list", listed, str.upper),
        ("capitalize", "list", listed, str.title),
        ("uppercase", "first_word", phrase, lambda text: _first(text, str.upper)),
        ("uppercase", "last_word", phrase, lambda text: _last(text, str.upper)),
        ("capitalize", "first_word", phrase, str.capitalize),
        ("capitalize", "last_word", phrase, lambda text: _last(text, str.capitalize)),
        ("uppercase", "last_letter", word, lambda text: text[:-1] + text[-1].upper()),
        ("uppercase", "name", chosen(FIRST_NAMES), where(str.isalpha, str.upper)),
        ("lowercase", "name", chosen(FIRST_NAMES), where(str.isalpha, str.lower)),
    )
    return tuple(
        further(FAMILY, f"{change}_{unit}", {"change": change, "unit": unit}, source, answer, wording)
        for change, unit, source, answer in rows
    )
