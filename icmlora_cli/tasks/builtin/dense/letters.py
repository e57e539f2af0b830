"""More letters and groups of letters of a word."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, further, where
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask, chosen
from icmlora_cli.tasks.builtin.words import ALL_WORDS

FAMILY = "letters"

_WORDS = tuple(word for word in ALL_WORDS if 5 <= len(word) <= 9)
_TAKE: dict[str, tuple[str, Callable[[str], str]]] = {
    "first_letter": ("[first|first|1st|initial] letter", lambda word: word[0]),
    "second_letter": ("[second|second|2nd] letter", lambda word: word[1]),
    "third_letter": ("[third|third|3rd] letter", lambda word: word[2]),
    "fourth_letter": ("[fourth|fourth|4th] letter", lambda word: word[3]),
    "last_letter": ("[last|last|final] letter", lambda word: word[-1]),
    "second_to_last_letter": ("[second-to-last|next-to-last|penultimate] letter", lambda word: word[-2]),
    "first_two_letters": ("first [two|two|2] letters", lambda word: word[:2]),
    "first_three_letters": ("first [three|three|3] letters", lambda word: word[:3]),
    "last_two_letters": ("[last|final] [two|two|2] letters", lambda word: word[-2:]),
    "last_three_letters": ("[last|final] [three|three|3] letters", lambda word: word[-3:]),
    "first_four_letters": ("first [four|four|4] letters", lambda word: word[:4]),
    "first_and_last_letters": ("first and last letters", lambda word: word[0] + word[-1]),
}
_CASES: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "upper": (str.lower, str.upper),
    "lower": (str.upper, str.lower),
    "same": (str.lower, str),
}
_CURATED = ("first_letter", "second_letter", "last_letter", "first_two_letters")


def _cased(case: str, many: bool) -> str:
    letters = "letters" if many else "letter"
    article = "" if many else "a/an "
    return {
        "upper": f"in [uppercase|upper case|capital letters|caps]|as {article}[uppercase|capital] {letters}",
        "lower": f"in [lowercase|lower case|small letters]|as {article}[lowercase|small] {letters}",
        "same": "[|||, in the same case|, just as written|, with its case unchanged]",
    }[case]


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    part = _TAKE[axes["part"]][0]
    cased = f"[{_cased(axes['case'], part.endswith('s'))}]"
    of_word = "[of the word|of the word|of the given word|of the input word|of the input]"
    shown = {"upper": "[lowercase |]", "lower": "[uppercase |capitalized |]", "same": ""}[axes["case"]]
    what = "what are" if part.endswith("s") else "what is"
    return Wording(
        input=f"a/an {shown}word|one word|a single {shown}word",
        do=f"{{pick}} the {part} {of_word} {cased}|{{pick}} the {part} {cased}|{{give}} only the {part}"
        f" {of_word} {cased}",
        result=f"the {part} {of_word} {cased}|the word's {part} {cased}",
        ask=f"{what} the {part} {of_word} {cased}|{what} the word's {part} {cased}",
    )


def _task(part: str, case: str) -> BuiltinTask:
    take = _TAKE[part][1]
    before, after = _CASES[case]
    if (part, case) == ("second_letter", "same"):
        before = str.upper
    return further(
        FAMILY,
        f"{part}_{case}",
        {"part": part, "case": case},
        chosen([before(word) for word in _WORDS]),
        where(str.isalpha, lambda text: after(take(text))),
        wording,
    )


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family."""
    return tuple(_task(part, case) for part in _TAKE for case in _CASES if case == "same" or part not in _CURATED)
