"""More kinds: the odd one out of all pairs, membership, and naming one kind of two."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations, permutations

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further, items_of, several
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask
from icmlora_cli.tasks.builtin.words_more_kinds import BASIC, PARTS_OF_SPEECH, PLURALS

ODD_FAMILY = "odd_one_out"
MEMBER_FAMILY = "membership"
NAME_FAMILY = "category_name"

_POOLS = BASIC | PARTS_OF_SPEECH
_CORE = ("animal", "fruit", "vegetable", "color", "city")
_WIDE = ("tool", "piece of clothing", "body part", "vehicle", "musical instrument", "sport", "country", "job", "drink")
_REPLIES = {"yes_no": ("yes", "no"), "true_false": ("true", "false"), "y_n": ("y", "n"), "1_0": ("1", "0")}
_CURATED = {
    *(("color", "animal", 3), ("color", "animal", 4), ("animal", "color", 3), ("animal", "fruit", 3)),
    *(("fruit", "animal", 3), ("fruit", "animal", 4), ("fruit", "color", 3), ("color", "fruit", 4)),
    *(("city", "fruit", 3), ("city", "animal", 3), ("animal", "city", 4)),
}
_CURATED_MEMBERS = {
    ("animal", "yes_no"),
    ("fruit", "yes_no"),
    ("color", "yes_no"),
    ("animal", "true_false"),
    ("fruit", "true_false"),
}
_SYNONYMS = {
    "color": "color|color|colour",
    "city": "city|city|town",
    "piece of clothing": "piece of clothing|item of clothing|garment",
    "body part": "body part|part of the body",
    "musical instrument": "musical instrument|instrument",
    "job": "job|profession|occupation",
    "sport": "sport",
    "food": "food|kind of food",
    "colors": "colors|colors|colours",
    "clothes": "clothes|pieces of clothing|garments",
    "jobs": "jobs|professions|occupations",
    "furniture": "pieces of furniture|furniture",
    "cities": "cities|cities|towns",
    "body parts": "body parts|parts of the body",
    "musical instruments": "musical instruments|instruments",
}


def _say(kind: str) -> str:
    return f"[{_SYNONYMS.get(kind, kind)}]"


def odd_wording(axes: Axes) -> Wording:
    """Return the phrases of an odd-one-out task."""
    odd, among, n = _say(axes["odd"]), _say(PLURALS[axes["among"]]), several(axes["count"])
    words = "[words|words|items]"
    rest = f"the [rest|others|other words] are {among}"
    pick = "[{pick}|{pick}|spot|identify]"
    return Wording(
        f"a [comma-separated |]list of {n} {words}|{n} {words}[ separated by commas|]|a list of [words|{n} words]",
        f"{pick} the [only |one |]{odd} [among|hidden among] [the |]{among}|{pick} the [only |one |]{odd},"
        f" [while|as|since] {rest}"
        f"|{pick} the word that is a/an {odd}, [not one of the {among}|while {rest}]"
        f"|{pick} the odd one out, the [only |]{odd} among [the |]{among}",
        f"the [only |one |]{odd} among [the |]{among}|the one word that is a/an {odd}, as {rest}",
        f"which [of the {n} {words}|word|one|word in the list] is a/an {odd}[, when {rest}|, not one of the {among}]",
    )


def member_wording(axes: Axes) -> Wording:
    """Return the phrases of a membership task."""
    yes, no = _REPLIES[axes["reply"]]
    kind, kinds = _say(axes["kind"]), _say(PLURALS[axes["kind"]])
    is_kind = f"[is|names|is the name of] a/an {kind}"
    not_kind = "[otherwise|if not|in any other case|for anything else]"
    reply = "[answer|reply|say|write|output|respond with|print]"
    return Wording(
        "a word|one word|a [single |]word or short phrase",
        f"{reply} {yes} if the [word|input] {is_kind}[,| and] {no} {not_kind}|[decide|say|tell|judge] [if"
        f"|whether] the [word|input] {is_kind}[: | and {reply} ]{yes} or {no}"
        f"|{reply} {yes} for a/an {kind}[,| and] {no} {not_kind}|{reply} {yes} for {kinds} and {no} for"
        f" [anything|everything] else",
        f'"{yes}" for {kinds}, "{no}" for [anything else|other things]'
        f'|"{yes}" if the [word|input] {is_kind}, else "{no}"',
        f"is the [word|input|given thing] a/an {kind}[, {yes} or {no}| ({yes}/{no})]",
    )


def name_wording(axes: Axes) -> Wording:
    """Return the phrases of a task that names a kind."""
    many = axes["number"] == "plural"
    listed = axes["unit"] == "list"
    kinds = axes["kinds"].split("/") if "kinds" in axes else list(_CORE)
    labels = [PLURALS[kind] if many else kind for kind in kinds]
    choices = f"{', '.join(labels[:-1])} or {labels[-1]}"
    what = (
        "[the items of the list|all the words of the list|the list|the listed words]"
        if listed
        else "[the word|the given word|the input]"
    )
    label = "[label|category|kind|class]"
    return Wording(
        "a [comma-separated |]list of words of one kind|some words of the same kind"
        if listed
        else "a word|one word|a single word",
        f"[classify|label] {what} as {choices}|[say|tell|write] [which {label}|what {label}] {what} [falls"
        f" under|belongs to]: {choices}"
        + f"|[choose|pick|give|name] the {label} of {what}: {choices}|[answer|reply] {choices} for {what}",
        f"the {label} of {what}, {choices}|the {label} [that fits|for] {what}: {choices}",
        f"what [is the {label} of|{label} fits] {what}[:|,] {choices}",
    )


def _odd_draw(odd: Sequence[str], among: Sequence[str], count: int) -> Source:
    def source(rng: random.Random) -> str:
        items = rng.sample(among, count - 1)
        items.insert(rng.randrange(count), rng.choice(odd))
        return ", ".join(items)

    return source


def _odd_answer(odd: Sequence[str], among: Sequence[str], count: int) -> Callable[[str], str]:
    odds, others = frozenset(odd), frozenset(among)

    def answer(text: str) -> str:
        items = items_of(text, ", ", count)
        found = [item for item in items if item in odds]
        if len(found) != 1 or sum(item in others for item in items) != count - 1:
            raise ValueError(f"not one odd item: {text!r}")
        return found[0]

    return answer


def _odd_rows() -> list[tuple[str, str, int]]:
    rows = [(odd, among, count) for count in (3, 4, 5) for odd, among in permutations(_CORE, 2)]
    rows += [(odd, among, count) for count in (3, 4, 5) for odd, among in permutations(PARTS_OF_SPEECH, 2)]
    for place, odd in enumerate(_WIDE):
        rows += [(odd, _WIDE[(place + gap) % len(_WIDE)], 3 + (place + gap) % 3) for gap in (1, 2, 4)]
        rows.append((odd, _CORE[place % 5], 3 + place % 3))
        rows.append((_CORE[(place + 1) % 5], odd, 3 + (place + 1) % 3))
    rows += [("piece of furniture", "animal", 3), ("flower", "animal", 4), ("flower", "tool", 3), ("food", "tool", 3)]
    rows += [("country", "city", 3), ("city", "country", 3), ("animal", "flower", 3), ("food", "color", 4)]
    return [row for row in rows if row not in _CURATED and not {("drink", "fruit"), ("fruit", "drink")} & {row[:2]}]


def _plain(kind: str) -> str:
    return kind.replace("piece of ", "").replace("musical ", "").replace(" ", "_")


def _odd_task(odd: str, among: str, count: int) -> BuiltinTask:
    left, right = _POOLS[odd], _POOLS[among]
    return further(
        ODD_FAMILY,
        f"{_plain(odd)}_among_{PLURALS[among].replace(' ', '_')}_{count}",
        {"odd": odd, "among": among, "count": str(count)},
        _odd_draw(left, right, count),
        _odd_answer(left, right, count),
        odd_wording,
    )


def _member_task(kind: str, reply: str) -> BuiltinTask:
    yes, no = _REPLIES[reply]
    inside = BASIC[kind]
    apart = {"food": ("fruit", "vegetable", "drink"), "fruit": ("food",), "vegetable": ("food",), "drink": ("food",)}
    others = {other: words for other, words in BASIC.items() if other not in (kind, *apart.get(kind, ()))}
    outside = frozenset(word for words in others.values() for word in words) - frozenset(inside)
    kinds = tuple(others)

    def source(rng: random.Random) -> str:
        while True:
            word = rng.choice(inside if rng.random() < 0.5 else others[rng.choice(kinds)])
            if (word in inside) != (word in outside):
                return word

    def answer(text: str) -> str:
        if text not in outside and text not in inside:
            raise ValueError(f"unknown word: {text!r}")
        return yes if text in inside else no

    return further(
        MEMBER_FAMILY, f"is_{_plain(kind)}_{reply}", {"kind": kind, "reply": reply}, source, answer, member_wording
    )


def _name_task(kinds: tuple[str, ...], unit: str, number: str) -> BuiltinTask:
    labels = {kind: PLURALS[kind] if number == "plural" else kind for kind in kinds}
    of_word = {word: kind for kind in kinds for word in _POOLS[kind]}
    size = 1 if unit == "word" else 3

    def source(rng: random.Random) -> str:
        return ", ".join(rng.sample(_POOLS[rng.choice(kinds)], size))

    def answer(text: str) -> str:
        found = {of_word.get(item, "") for item in items_of(text, ", ", size)}
        if len(found) != 1 or "" in found:
            raise ValueError(f"not words of one kind: {text!r}")
        return labels[found.pop()]

    name = f"{'_or_'.join(map(_plain, kinds))}_of_{unit}" + ("_plural" if number == "plural" else "")
    return further(
        NAME_FAMILY, name, {"unit": unit, "number": number, "kinds": "/".join(kinds)}, source, answer, name_wording
    )


def _names() -> list[tuple[tuple[str, ...], str, str]]:
    rows: list[tuple[tuple[str, ...], str, str]] = []
    pairs = (
        *combinations(_CORE, 2),
        *combinations(PARTS_OF_SPEECH, 2),
        *zip(_WIDE, _WIDE[1:] + _WIDE[:1], strict=True),
    )
    for place, pair in enumerate(pairs):
        rows.append((pair, "word", "plural" if place % 4 == 3 else "singular"))
        if place % 2 == 0 and pair[0] in BASIC:
            rows.append((pair, "list", "singular"))
    three = (
        ("animal", "fruit", "color"),
        ("tool", "vehicle", "sport"),
        ("country", "city", "animal"),
        ("job", "sport", "drink"),
    )
    rows += [(kinds, "word", "singular") for kinds in three]
    rows.append((tuple(PARTS_OF_SPEECH), "word", "singular"))
    return rows


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of the three families.

    No held-out pair, reply or plural label of a list is among them.
    """
    members = [(kind, reply) for kind in BASIC for reply in _REPLIES if (kind, reply) not in _CURATED_MEMBERS]
    late = ("food", "flower", "piece of furniture")
    kept = [(kind, reply) for kind, reply in members if kind not in late or reply == "yes_no"]
    kept = [
        (kind, reply) for kind, reply in kept if kind in _CORE or reply in ("yes_no", "true_false") or len(kind) < 6
    ]
    return (
        *(_odd_task(*row) for row in dict.fromkeys(_odd_rows())),
        *(_member_task(*row) for row in kept),
        *(_name_task(*row) for row in _names()),
    )
