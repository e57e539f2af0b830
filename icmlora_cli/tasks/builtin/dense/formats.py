"""More joins, brackets and rearrangements of several words."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask, joined
from icmlora_cli.tasks.builtin.words import SHORT_NOUNS

FAMILY = "formats"

_SEPARATORS = {"words": " ", "list": ", ", "semicolons": "; "}
_GIVEN = {
    "words": "[some |a few |][words separated by spaces|space-separated words]|a phrase",
    "list": "a comma-separated list|[some |]items separated by commas",
    "semicolons": "a list [separated by semicolons|with semicolons]|[some |]items separated by semicolons",
    "two_list": "two words [separated by|with] a comma",
    "two_and": 'two words joined by "and"',
}
_JOINS = {
    "hyphens": ("-", "hyphens|dashes|hyphen signs"),
    "underscores": ("_", "underscores|underscore signs"),
    "slashes": ("/", "slashes|forward slashes"),
    "dots": (".", "dots|periods|full stops"),
    "plus": (" + ", "plus signs"),
    "pipes": (" | ", "vertical bars"),
    "and": (" and ", '"and"|the word "and"'),
    "or": (" or ", '"or"|the word "or"'),
    "then": (" then ", '"then"|the word "then"'),
    "arrows": (" -> ", "arrows"),
    "commas": (", ", "commas|commas and spaces"),
    "semicolons": ("; ", "semicolons|semicolons and spaces"),
    "spaces": (" ", "single spaces"),
    "colons": (":", "colons"),
    "ampersands": (" & ", "ampersands|and signs"),
    "equals": ("=", "equals signs"),
    "nothing": ("", ""),
}
_WRAPS = {
    "brackets": ("[", "]", "square brackets"),
    "parentheses": ("(", ")", "parentheses|round brackets"),
    "curly": ("{", "}", "curly brackets|curly braces|braces"),
    "angles": ("<", ">", "angle brackets"),
    "all_quotes": ('"', '"', "one pair of double quotes"),
    "stars": ("*", "*", "one pair of asterisks"),
}
_EACH = {
    "quotes": ('"{}"', "double quotes around"),
    "single_quotes": ("'{}'", "single quotes around"),
    "each_parentheses": ("({})", "parentheses around"),
    "each_brackets": ("<{}>", "angle brackets around"),
    "hashes": ("#{}", "a hash sign before"),
    "bangs": ("{}!", "an exclamation mark after"),
    "each_the": ("the {}", 'the word "the" before'),
    "each_dash": ("-{}", "a hyphen before"),
}
_MOVES: dict[str, tuple[str, str, Callable[[list[str]], list[str]]]] = {
    "without_first": (
        "[drop|remove|delete|leave out] the first {one} of the {all}",
        "the {all} without [its|the] first {one}",
        lambda items: items[1:],
    ),
    "without_last": (
        "[drop|remove|delete|leave out] the last {one} of the {all}",
        "the {all} without [its|the] last {one}",
        lambda items: items[:-1],
    ),
    "last_to_front": (
        "move the last {one} of the {all} to the [front|start]",
        "the {all} with its last {one} moved to the front",
        lambda items: [items[-1], *items[:-1]],
    ),
    "first_to_end": (
        "move the first {one} of the {all} to the end",
        "the {all} with its first {one} moved to the end",
        lambda items: [*items[1:], items[0]],
    ),
    "first_twice": (
        "[repeat|double] the first {one} of the {all}[ and keep the rest|]",
        "the {all} with its first {one} written twice",
        lambda items: [items[0], *items],
    ),
    "last_twice": (
        "[repeat|double] the last {one} of the {all}[ and keep the rest|]",
        "the {all} with its last {one} written twice",
        lambda items: [*items, items[-1]],
    ),
    "first_two": (
        "[keep|give|output] only the first two {one}s of the {all}",
        "the first two {one}s of the {all}",
        lambda items: items[:2],
    ),
    "last_two": (
        "[keep|give|output] only the last two {one}s of the {all}",
        "the last two {one}s of the {all}",
        lambda items: items[-2:],
    ),
    "ends": (
        "[keep|give|output] only the first and the last {one} of the {all}",
        "the first and the last {one} of the {all}",
        lambda items: [items[0], items[-1]],
    ),
    "numbered": ("", "", lambda items: [f"{place}. {item}" for place, item in enumerate(items, 1)]),
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    op, source, given = axes["operation"], axes["source"], _GIVEN[axes["source"]]
    things = "words" if source == "words" else "items"
    if op == "swap":
        return Wording(
            given,
            "[swap|switch|exchange] the two words[, keeping what joins them|]|[write|give] the two words in the"
            " [other|opposite] order",
            "the two words in [the other|swapped] order",
        )
    if op == "reverse":
        whole = "list" if source != "words" else "phrase"
        return Wording(
            given,
            f"[reverse|turn around] the [order of the {things}|{whole}]|[write|give] the {things} in reverse"
            f" order|put the {things} in reversed order",
            f"the {things} in reverse order|the [reversed |]{things} from last to first",
        )
    if op == "nothing":
        return Wording(
            given,
            f"[join|write|put] the {things} together as one word[, without separators|]|remove [everything|the"
            f" separators] between the {things}",
            f"the {things} [joined|run together] as one word",
        )
    if op in _JOINS:
        sign = f"[{_JOINS[op][1]}]"
        old = {"words": "spaces", "list": "commas", "semicolons": "semicolons"}[source]
        return Wording(
            given,
            f"[join|connect|link] the {things} with {sign}|[put|write] {sign} between the {things}[, in place"
            f" of the {old}| instead of {old}|]|replace the {old} [by|with] {sign}",
            f"the {things} [joined|separated|connected] by {sign}|the {things} with {sign} between them",
        )
    if op in _WRAPS:
        marks = f"[{_WRAPS[op][2]}]"
        whole = "[whole list|list]" if source != "words" else "[whole phrase|phrase]"
        return Wording(
            given,
            f"[put|write|enclose] the {whole} [in|inside] {marks}|[wrap|surround] the {whole} with {marks}",
            f"the {whole} [in|inside|enclosed in] {marks}",
        )
    if op in _EACH:
        how, one = _EACH[op][1], "word" if source == "words" else "item"
        return Wording(
            given,
            f"[put|add|write] {how} [each|every] {one}[ separately|]|{{rewrite}} the {things} with {how} [each"
            f"|every one]",
            f"the {things} with {how} each[ one|]",
        )
    one, whole = ("word", "phrase") if source == "words" else ("item", "list")
    if op == "numbered":
        return Wording(
            given,
            f"number the {things} from 1[, with a dot after each number|]|put its number and a dot before each {one}",
            f"the {things}, each with its number and a dot in front",
        )
    do, result, _ = _MOVES[op]
    return Wording(given, *(text.replace("{one}", one).replace("{all}", whole) for text in (do, result)))


def _task(op: str, source: str, draw: Source, answer: Callable[[str], str]) -> BuiltinTask:
    return further(FAMILY, f"{op}_{source}", {"operation": op, "source": source}, draw, answer, wording)


def _joined(source: str, low: int = 2, high: int = 4) -> Source:
    return joined(SHORT_NOUNS, low, high, _SEPARATORS[source])


def _join(sep: str, new: str) -> Callable[[str], str]:
    return lambda text: new.join(text.split(sep))


def _wrap(left: str, right: str) -> Callable[[str], str]:
    return lambda text: f"{left}{text}{right}"


def _each(sep: str, shape: str) -> Callable[[str], str]:
    return lambda text: sep.join(shape.replace("{}", item) for item in text.split(sep))


def _moved(sep: str, move: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: sep.join(move(text.split(sep)))


def _swap(sep: str) -> Callable[[str], str]:
    def answer(text: str) -> str:
        left, right = text.split(sep)
        return f"{right}{sep}{left}"

    return answer


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; none reverses spaced words or joins a list by underscores, held out."""
    curated = ("hyphens", "underscores", "slashes")
    tasks = []
    for op, (sign, _) in _JOINS.items():
        for source, sep in _SEPARATORS.items():
            small = source == "semicolons" and op not in ("and", "spaces", "commas", "hyphens", "plus")
            if sign != sep and not small and (op not in curated or (source == "semicolons" and op == "hyphens")):
                tasks.append(_task(op, source, _joined(source), _join(sep, sign)))
    for source in ("words", "list"):
        sep = _SEPARATORS[source]
        tasks += [_task(op, source, _joined(source), _wrap(*row[:2])) for op, row in _WRAPS.items() if op != "brackets"]
        tasks += [_task(op, source, _joined(source), _each(sep, row[0])) for op, row in _EACH.items() if op != "quotes"]
        tasks += [_task(op, source, _joined(source, 3, 5), _moved(sep, row[2])) for op, row in _MOVES.items()]
    for source, sep in (("two_list", ", "), ("two_and", " and ")):
        tasks.append(_task("swap", source, joined(SHORT_NOUNS, 2, 2, sep), _swap(sep)))
    return tuple(tasks)
