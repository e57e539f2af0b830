"""More orders: of words by the alphabet or by length, of numbers by size."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further, items_of, lists, several
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask
from icmlora_cli.tasks.builtin.words import SHORT_NOUNS
from icmlora_cli.tasks.builtin.words_kinds import ANIMALS

WORDS_FAMILY = "order_words"
NUMBERS_FAMILY = "order_numbers"

_WORD_POOLS = (SHORT_NOUNS, SHORT_NOUNS, ANIMALS[:60])
_RANGES = (range(1, 100), range(1, 100), range(1, 1000), range(1, 21))

_RESULTS: dict[str, tuple[str, str]] = {
    "alphabetical_first": ("that comes first [alphabetically|in the alphabet|in alphabetical order]", ""),
    "alphabetical_last": ("that comes last [alphabetically|in the alphabet|in alphabetical order]", ""),
    "longest": ("[with|that has] the most letters|that is the longest", "longest"),
    "shortest": ("[with|that has] the fewest letters|that is the shortest", "shortest"),
    "smallest": (
        "that is the [smallest|lowest|least]|with the [smallest|lowest] value",
        "smallest|lowest|minimum|least",
    ),
    "largest": (
        "that is the [largest|biggest|highest|greatest]|with the [largest|highest] value",
        "largest|biggest|highest|greatest|maximum",
    ),
    "second_smallest": (
        "that is [second smallest|second lowest|next to the smallest]",
        "second smallest|second-smallest|second lowest",
    ),
    "second_largest": (
        "that is [second largest|second biggest|second highest]",
        "second largest|second-largest|second highest",
    ),
    "middle_value": (
        "that is [neither the smallest nor the largest|between the other two in size]",
        "median|middle-sized",
    ),
}
_ORDERS = {
    "sort_words": "alphabetical order|order from A to Z",
    "sort_words_down": "reverse alphabetical order|order from Z to A",
    "sort_numbers": "[increasing|ascending] order|order from [small to large|lowest to highest|smallest to largest]",
    "sort_numbers_down": "[decreasing|descending] order|order from [large to small|highest to lowest|largest to"
    " smallest]",
}
_SHORT = {"sort_words": "alphabetically", "sort_words_down": "[backwards through the alphabet|from Z to A]"}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of either family."""
    op, n = axes["operation"], several(axes["count"])
    numbers = op in ("smallest", "largest", "second_smallest", "second_largest", "middle_value") or "numbers" in op
    things, thing = ("[numbers|numbers|integers|values]", "number") if numbers else ("[words|words|items]", "word")
    given = f"a comma-separated list of {n} {things}|{n} {things}[ separated by commas|]|a list of {n} {things}"
    if op in _ORDERS:
        order = f"[{_ORDERS[op]}]"
        return Wording(
            given,
            f"[sort|arrange|order] the [{n} |list of |]{things} [in|into] {order}|put the [{n} |]{things} [in"
            f"|into] {order}" + (f"|[sort|order] the [{n} |]{things} {_SHORT[op]}" if op in _SHORT else ""),
            f"the [{n} |same |]{things} in {order}|the [sorted |]list in {order}",
        )
    tail, adjective = (f"[{text}]" for text in _RESULTS[op])
    among = f"[ of the {n} {things}| in the list| of the list||]"
    if op.startswith("alphabetical"):
        comes = op.split("_")[1]
        ask = f"which [of the {n} {things}|{thing}|{thing} in the list] comes {comes} [alphabetically|in the alphabet]"
        do = f"{{pick}} the {thing} {tail}|{{pick}} the one of the {n} {things} {tail}"
        return Wording(given, f"{do}|out of {n} {things}, {{pick}} the one {tail}", f"the {thing} {tail}", ask)
    which = f"[the {adjective} {thing}{among}|the {thing} {tail}|the {adjective} of the {n} {things}]"
    ask = (
        f"which [of the {n} {things}|{thing}|{thing} in the list] is the {adjective}|what is the {adjective}"
        f" {thing}{among}"
    )
    return Wording(given, f"{{pick}} {which}|out of {n} {things}, {{pick}} the {adjective}[ one|]", which, ask)


def _words(count: int) -> Source:
    return lists(count, pools=_WORD_POOLS)


def _one_longest(count: int, most: bool) -> Source:
    def source(rng: random.Random) -> str:
        while True:
            items = rng.sample(rng.choice(_WORD_POOLS), count)
            sizes = sorted(map(len, items), reverse=most)
            if abs(sizes[0] - sizes[1]) >= 2 or (sizes[0] != sizes[1] and rng.random() < 0.2):
                return ", ".join(items)

    return source


def _numbers(count: int) -> Source:
    return lambda rng: ", ".join(str(item) for item in rng.sample(rng.choice(_RANGES), count))


def _by_words(count: int, pick: Callable[[list[str]], str]) -> Callable[[str], str]:
    return lambda text: pick(items_of(text, ", ", count))


def _by_numbers(count: int, pick: Callable[[list[int]], int | list[int]]) -> Callable[[str], str]:
    def answer(text: str) -> str:
        found = pick(sorted(int(item) for item in items_of(text, ", ", count)))
        return ", ".join(map(str, found)) if isinstance(found, list) else str(found)

    return answer


def _word_rows() -> list[tuple[str, int, Source, Callable[[str], str]]]:
    rows: list[tuple[str, int, Source, Callable[[str], str]]] = []
    for count in (2, 5, 6):
        rows.append(("alphabetical_first", count, _words(count), _by_words(count, min)))
        rows.append(("alphabetical_last", count, _words(count), _by_words(count, max)))
    for count in (2, 5):
        rows.append(("sort_words", count, _words(count), _by_words(count, lambda items: ", ".join(sorted(items)))))
    for count in (2, 3, 4):
        rows.append(
            ("sort_words_down", count, _words(count), _by_words(count, lambda items: ", ".join(sorted(items)[::-1])))
        )
    for count in (2, 3, 4, 5):
        rows.append(("longest", count, _one_longest(count, True), _by_words(count, lambda items: max(items, key=len))))
        rows.append(
            ("shortest", count, _one_longest(count, False), _by_words(count, lambda items: min(items, key=len)))
        )
    return rows


def _number_rows() -> list[tuple[str, int, Source, Callable[[str], str]]]:
    picks: tuple[tuple[str, tuple[int, ...], Callable[[list[int]], int | list[int]]], ...] = (
        ("smallest", (2, 5, 6), lambda items: items[0]),
        ("largest", (2, 5, 6), lambda items: items[-1]),
        ("second_smallest", (4, 5, 6), lambda items: items[1]),
        ("second_largest", (4, 5, 6), lambda items: items[-2]),
        ("middle_value", (3,), lambda items: items[1]),
        ("sort_numbers", (2, 5), lambda items: items),
        ("sort_numbers_down", (2, 3, 4, 5), lambda items: items[::-1]),
    )
    return [(op, n, _numbers(n), _by_numbers(n, pick)) for op, counts, pick in picks for n in counts]


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of both families."""
    families = ((WORDS_FAMILY, _word_rows()), (NUMBERS_FAMILY, _number_rows()))
    return tuple(
        further(family, f"{op}_of_{count}", {"operation": op, "count": str(count)}, source, answer, wording)
        for family, rows in families
        for op, count, source, answer in rows
    )
