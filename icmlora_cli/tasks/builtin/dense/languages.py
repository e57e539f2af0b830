"""More language pairs, and telling the language of a word."""

from itertools import permutations

from icmlora_cli.tasks.builtin.dense.build import Axes, further, table
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask
from icmlora_cli.tasks.builtin.words_bilingual import LANGUAGES, pairs

FAMILY = "bilingual"


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    if axes["direction"] == "name":
        first, second = axes["language"].split("/")
        choice = f"{first} or {second}"
        return Wording(
            "a word|one word",
            f"[say|tell|write] [which language|what language] the word is [in|from]: {choice}|[name|give] the"
            f" language of the word, {choice}",
            f"the language of the word, {choice}",
            f"is the word {choice}",
        )
    if axes["direction"] in ("from_english", "to_english"):
        ends = ("English", axes["language"].title())
        source, target = ends if axes["direction"] == "from_english" else ends[::-1]
    else:
        source, target = axes["direction"].title(), axes["language"].title()
    return Wording(
        f"a/an {source} word|a [common |]word in {source}|one {source} word",
        f"translate the [{source} word|word from {source}] [into|to] {target}|[give|write|say] the {target}"
        f" [word|translation] for the {source} [one|word]"
        f"|[turn|put] the {source} word into {target}|[say|write] in {target} what the {source} word means",
        f"the {target} translation of the {source} word|the {target} word that means the same as the {source} one",
        f"what is the {source} word in {target}",
    )


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; German into English is held out."""
    italian = {word: english for english, word in pairs("Italian").items()}
    tasks = [
        further(
            FAMILY, "italian_to_english", {"direction": "to_english", "language": "italian"}, *table(italian), wording
        )
    ]
    for source, target in permutations(LANGUAGES, 2):
        words = {pairs(source)[english]: pairs(target)[english] for english in pairs(source)}
        axes = {"direction": source.lower(), "language": target.lower()}
        tasks.append(further(FAMILY, f"{source.lower()}_to_{target.lower()}", axes, *table(words), wording))
    for first, second in permutations(("English", *LANGUAGES), 2):
        if first < second:
            tasks.append(_telling(first, second))
    return tuple(tasks)


def _words(language: str) -> tuple[str, ...]:
    return tuple(pairs("Spanish")) if language == "English" else tuple(pairs(language).values())


def _telling(first: str, second: str) -> BuiltinTask:
    left, right = _words(first), _words(second)
    same = {word.lower() for word in left} & {word.lower() for word in right}
    rows = {word: language for language, words in ((first, left), (second, right)) for word in words}
    rows = {word: language for word, language in rows.items() if word.lower() not in same}
    axes = {"direction": "name", "language": f"{first}/{second}"}
    return further(FAMILY, f"{first.lower()}_or_{second.lower()}", axes, *table(rows), wording)
