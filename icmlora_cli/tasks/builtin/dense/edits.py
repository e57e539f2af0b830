"""Small edits of one word or a short phrase: a fixed word or mark added, a letter left out, the word repeated."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, further
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.inflect import article
from icmlora_cli.tasks.builtin.types import BuiltinTask, chosen
from icmlora_cli.tasks.builtin.words import ALL_WORDS
from icmlora_cli.tasks.builtin.words_adjectives import LONG_ADJECTIVES, SHORT_ADJECTIVES
from icmlora_cli.tasks.builtin.words_nouns import NOUNS

FAMILY = "word_edit"

_BEFORE = {
    **{word: f'the word "{word}"' for word in ("the", "my", "your", "our", "no", "every", "this", "one")},
    "new": 'the word "new"',
    "hello": 'the word "hello"',
    "dear": 'the word "dear"',
    "I like": 'the words "I like"',
}
_DEGREE = ("very", "so", "too", "not", "really", "quite")
_AFTER = {
    "!": "an exclamation mark",
    "?": "a question mark",
    ".": "a [full stop|period]",
    "...": "three dots",
    ":": "a colon",
    ";": "a semicolon",
    ",": "a comma",
    " please": 'the word "please"',
    " now": 'the word "now"',
    " again": 'the word "again"',
    " too": 'the word "too"',
    " shop": 'the word "shop"',
    "123": "the digits 123",
    ".txt": 'the ending ".txt"',
    ".com": 'the ending ".com"',
}
_WRAPS = {
    "parentheses": ("(", ")", "[parentheses|round brackets]"),
    "square": ("[", "]", "square brackets"),
    "curly": ("{", "}", "[curly brackets|curly braces|braces]"),
    "angle": ("<", ">", "[angle brackets|pointed brackets]"),
    "double_quotes": ('"', '"', "double [quotes|quotation marks]"),
    "single_quotes": ("'", "'", "single [quotes|quotation marks]"),
    "stars": ("*", "*", "[stars|asterisks]"),
    "double_stars": ("**", "**", "[double asterisks|two asterisks on each side]"),
    "underscores": ("_", "_", "underscores"),
    "hyphens": ("-", "-", "[hyphens|dashes]"),
    "backticks": ("`", "`", "backticks"),
    "slashes": ("/", "/", "slashes"),
    "bars": ("|", "|", "vertical bars"),
    "tildes": ("~", "~", "tildes"),
}
_SIGNS = {
    "#": "a hash sign",
    "@": "an at sign",
    "- ": "a hyphen and a space",
    "$": "a dollar sign",
    "> ": 'a "greater than" sign and a space',
}
_VOWELS = "aeiou"

Edit = Callable[[str], str]

_OTHER: dict[str, tuple[str, str, Edit]] = {
    "without_first_letter": (
        "[remove|drop|delete|leave out|cut off] the [first|initial] letter of the word|{rewrite} the word"
        " without its first letter",
        "the word [without|minus] its [first|initial] letter",
        lambda word: word[1:],
    ),
    "without_last_letter": (
        "[remove|drop|delete|leave out|cut off] the [last|final] letter of the word|{rewrite} the word without"
        " its last letter",
        "the word [without|minus] its [last|final] letter",
        lambda word: word[:-1],
    ),
    "without_first_two": (
        "[remove|drop|delete|leave out] the first two letters of the word|{rewrite} the word without its first"
        " two letters",
        "the word [without|minus] its first [two|2] letters",
        lambda word: word[2:],
    ),
    "without_vowels": (
        "[remove|drop|delete] [all|the] vowels from the word|{rewrite} the word without [its|any] vowels",
        "the word [without|with none of] its vowels|only the consonants of the word",
        lambda word: "".join(letter for letter in word if letter not in _VOWELS),
    ),
    "twice": (
        "[write|repeat|say|output] the word [twice|two times], with a space between|double the word, with a"
        " space between",
        "the word [twice|two times][, with a space between| in a row, with a space between]",
        lambda word: f"{word} {word}",
    ),
    "twice_joined": (
        "[write|repeat] the word twice without a space|[write|output] the word two times as one word, no space",
        "the word [twice|doubled] [without a space|with no space]",
        lambda word: word * 2,
    ),
    "three_times": (
        "[write|repeat|say|output] the word [three times|3 times], with spaces between",
        "the word [three times|3 times][, with spaces between| in a row, with spaces between]",
        lambda word: f"{word} {word} {word}",
    ),
    "twice_comma": (
        "[write|repeat|output] the word twice, with a comma [and a space |]between",
        "the word [twice|two times], separated by a comma",
        lambda word: f"{word}, {word}",
    ),
    "twice_and": (
        'write the word twice with "and" between|[repeat|output] the word two times, joined by "and"',
        'the word twice, joined by "and"',
        lambda word: f"{word} and {word}",
    ),
    "spelled_hyphens": (
        "[spell|write] the word [letter by letter |]with hyphens between its letters|put a hyphen between all"
        " letters of the word",
        "the letters of the word [separated|joined] by hyphens",
        "-".join,
    ),
    "spelled_spaces": (
        "[spell|write] the word [letter by letter |]with spaces between its letters|put a space between all"
        " letters of the word",
        "the letters of the word [separated|set apart] by spaces",
        " ".join,
    ),
    "doubled_last_letter": (
        "[double|repeat] the last letter of the word|{rewrite} the word with its last letter doubled",
        "the word with its last letter [doubled|written twice]",
        lambda word: word + word[-1],
    ),
    "doubled_first_letter": (
        "[double|repeat] the first letter of the word|{rewrite} the word with its first letter doubled",
        "the word with its first letter [doubled|written twice]",
        lambda word: word[0] + word,
    ),
    "as_it_is": (
        "[copy|repeat|echo] the [word|input][ unchanged| as it is| exactly|]|{rewrite} the word [unchanged|as it is]",
        "the [same word|word itself|word unchanged|input as it is]",
        str,
    ),
    "article": (
        'put "a" or "an" [before|in front of] the [word|noun], [whichever fits|as its first sound asks]|[add'
        "|write] the [right|fitting|correct] indefinite article [before|in front of] the [word|noun]",
        'the [word|noun] [with|after] its [fitting|correct|right] indefinite article|the word with "a" or "an"'
        " in front",
        lambda word: f"{article(word)} {word}",
    ),
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    edit, detail = axes["edit"], axes["detail"]
    one = "a word|one word|a single word"
    word = "[word|word|input|given word]"
    if edit == "other":
        do, result, _ = _OTHER[detail]
        return Wording(one, do, result)
    if edit == "wrap":
        marks = _WRAPS[detail][2]
        do = (
            f"[put|write|place] the {word} [in|between|inside] {marks}|[wrap|enclose|surround] the {word} [in"
            f"|with] {marks}"
        )
        return Wording(one, f"{do}|[put|add] {marks} around the {word}", f"the {word} [in|inside|between] {marks}")
    thing = {
        "before": _BEFORE.get(detail, f'the word "{detail}"'),
        "after": _AFTER.get(detail, ""),
        "sign": _SIGNS.get(detail, ""),
    }[edit]
    if edit == "after":
        do = (
            f"[put|add|write|append] {thing} [after|at the end of|behind] the {word}|{{rewrite}} the {word}"
            f" followed by {thing}"
        )
        return Wording(one, do, f"the {word} followed by {thing}|the {word} with {thing} at the end")
    do = (
        f"[put|add|write|place] {thing} [before|in front of|at the start of] the {word}|{{rewrite}} the {word}"
        f" with {thing} [before it|in front]"
    )
    return Wording(one, do, f"the {word} with {thing} [in front|before it]|{thing} followed by the {word}")


def _task(edit: str, detail: str, name: str, change: Edit, words: tuple[str, ...]) -> BuiltinTask:
    return further(FAMILY, name, {"edit": edit, "detail": detail}, chosen(words), change, wording)


def _name(text: str) -> str:
    names = {
        "!": "exclamation",
        "?": "question",
        ".": "period",
        "...": "dots",
        ":": "colon",
        ";": "semicolon",
        ",": "comma",
    }
    names |= {"#": "hash", "@": "at", "- ": "hyphen", "$": "dollar", "> ": "greater"}
    return names.get(text) or text.strip(" .").lower().replace(" ", "_")


def _before(text: str) -> Edit:
    return lambda word: f"{text}{word}"


def _after(text: str) -> Edit:
    return lambda word: f"{word}{text}"


def _around(left: str, right: str) -> Edit:
    return lambda word: f"{left}{word}{right}"


def dense() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    words = tuple(word for word in ALL_WORDS if 4 <= len(word) <= 8)
    adjectives = SHORT_ADJECTIVES + LONG_ADJECTIVES
    return (
        *(_task("before", text, f"word_after_{_name(text)}", _before(f"{text} "), NOUNS) for text in _BEFORE),
        *(_task("before", text, f"degree_{text}", _before(f"{text} "), adjectives) for text in _DEGREE),
        *(_task("after", text, f"word_then_{_name(text)}", _after(text), words) for text in _AFTER),
        *(_task("sign", text, f"sign_{_name(text)}", _before(text), words) for text in _SIGNS),
        *(
            _task("wrap", kind, f"wrap_{kind}", _around(left, right), words)
            for kind, (left, right, _) in _WRAPS.items()
        ),
        *(
            _task("other", kind, f"word_{kind}", row[2], NOUNS if kind == "article" else words)
            for kind, row in _OTHER.items()
        ),
    )
