"""More layouts and fields to take one value out of."""

import json
import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, drawn, further, items_of, where
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask
from icmlora_cli.tasks.builtin.words import SHORT_NOUNS
from icmlora_cli.tasks.builtin.words_kinds import CITIES, COLORS, FIRST_NAMES

FAMILY = "extraction"

Record = dict[str, str]

_SURNAMES = tuple(
    "Smith Brown Garcia Rossi Müller Novak Silva Kim Tanaka Khan Lopez Moreau Weber Olsen Costa Clark Hill".split()
)
_FIELDS = {
    "name": "[name[ of the person|]|person's name]",
    "city": "[city|city|name of the city]",
    "age": "[age|age of the person|person's age]",
    "item": "[item|product|thing bought]",
    "price": "[price|price|amount of the price]",
    "color": "[color|color|colour]",
    "count": "[quantity|number of items|count]",
    "first_name": "[first name|given name]",
    "last_name": "[last name|surname|family name]",
    "user": "[user name|username|part before the at sign]",
    "domain": "[domain|part after the at sign]",
    "quoted": "[quoted word|word in [double |]quotes]",
    "bracketed": "word in [parentheses|round brackets]",
    "number": "number",
    "hashtag": "[hashtag word|word after the hash sign], without the sign",
    "extension": "[file extension|extension], without the dot",
    "base": "file name without [its|the] extension",
    "file": "[file name|name of the file] at the end",
    "folder": "first folder",
    "key": "[key|part before the [equals sign|sign]]",
    "value": "[value|part after the [equals sign|sign]]",
    "capital": "[capitalized word|word with a capital letter|name]",
    "left": "[part|word] before the arrow",
    "right": "[part|word] after the arrow",
    "host": "[site name|host name] without www and ending",
    "caps": "word in [capital letters|all caps]",
}
_LAYOUTS = {
    "sentence": "a sentence|a [short |]sentence about a person",
    "json": "a JSON object|some JSON",
    "csv": "a CSV row of name, city and age|a [comma-separated |CSV ]row: name, city, age",
    "pairs": "[a line of |some ]key=value pairs",
    "pipes": "a row of name, city and age with vertical bars|name, city and age [split|separated] by vertical bars",
    "lines": "[a line of |some ]fields like name: X, city: Y[| and age: Z]",
    "tags": "XML[-like|] tags|some tagged text",
    "order_sentence": "a [short |]sentence about [a purchase|an order]",
    "order_json": "a JSON object about [a purchase|an order]",
    "order_csv": "a CSV row of item, color, quantity and price|a row: item, color, quantity, price",
    "order_pairs": "key=value pairs about [a purchase|an order]",
    "full_name": "a full name|a first and a last name",
    "surname_first": "a name written as last name, comma, first name",
    "email": "an email address",
    "quotes": "a phrase with one word in [double |]quotes",
    "parentheses": "a phrase with one word in [parentheses|round brackets]",
    "phrase_number": "a phrase with a number[ in it|]",
    "phrase_hash": "a phrase with a hashtag",
    "file_name": "a file name",
    "path": "a [file |]path",
    "pair": "one key=value pair",
    "phrase_name": "a phrase with a name in it",
    "arrow": "two words [with an arrow between|and an arrow]",
    "url": "a web address",
    "phrase_caps": "a phrase with one word in capital letters",
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    field, layout = f"[{_FIELDS[axes['field']]}]", f"[{_LAYOUTS[axes['layout']]}]"
    verb = "[extract|extract|find|copy|return|output|give|get|pull out]"
    return Wording(
        layout,
        f"{verb} [only |just |]the {field}[ from {layout}|]",
        f"the {field}",
        f"what is the {field}[ in it|]",
    )


def _person(rng: random.Random) -> Record:
    return {"name": rng.choice(FIRST_NAMES), "city": rng.choice(CITIES), "age": str(rng.randint(18, 90))}


def _order(rng: random.Random) -> Record:
    count, price = rng.sample(range(2, 60), 2)
    return {"item": rng.choice(SHORT_NOUNS), "color": rng.choice(COLORS[:12]), "count": str(count), "price": str(price)}


def _shuffled(rng: random.Random, record: Record) -> list[tuple[str, str]]:
    items = list(record.items())
    rng.shuffle(items)
    return items


def _order_sentence(rng: random.Random, r: Record) -> str:
    return rng.choice(
        (
            f"Order: {r['count']} x {r['color']} {r['item']}, ${r['price']}.",
            f"We sold {r['count']} of the {r['color']} {r['item']} for ${r['price']}.",
            f"For ${r['price']} I got the {r['color']} {r['item']}, {r['count']} times.",
        )
    )


def _as_json(rng: random.Random, record: Record) -> str:
    return json.dumps({key: int(value) if value.isdigit() else value for key, value in _shuffled(rng, record)})


Layout = Callable[[random.Random, Record], str]
_RECORDS: tuple[tuple[str, Callable[[random.Random], Record], Layout, str], ...] = (
    ("pipes", _person, lambda _, record: " | ".join(record.values()), "name city"),
    (
        "lines",
        _person,
        lambda rng, record: ", ".join(f"{key}: {value}" for key, value in _shuffled(rng, record)),
        "name city age",
    ),
    (
        "tags",
        _person,
        lambda rng, record: " ".join(f"<{key}>{value}</{key}>" for key, value in _shuffled(rng, record)),
        "name city age",
    ),
    ("order_sentence", _order, _order_sentence, "item color count price"),
    ("order_json", _order, _as_json, "item color count price"),
    ("order_csv", _order, lambda _, record: ",".join(record.values()), "item color count price"),
    (
        "order_pairs",
        _order,
        lambda rng, record: "; ".join(f"{key}={value}" for key, value in _shuffled(rng, record)),
        "item color count price",
    ),
)


def _marked(left: str, right: str, words: tuple[str, ...] = SHORT_NOUNS, around: int = 2) -> Source:
    def source(rng: random.Random) -> str:
        others = rng.sample(SHORT_NOUNS, around)
        parts = [*others, f"{left}{rng.choice([word for word in words if word not in others])}{right}"]
        rng.shuffle(parts)
        return " ".join(parts)

    return source


def _between(left: str, right: str) -> Callable[[str], str]:
    return lambda text: text.split(left)[1].split(right)[0]


def _only(test: Callable[[str], bool]) -> Callable[[str], str]:
    return lambda text: next(word for word in text.split(" ") if test(word))


def _only_of(count: int, test: Callable[[str], bool]) -> Callable[[str], str]:
    find = _only(test)
    return where(lambda text: len(text.split(" ")) == count, find)


_EXTENSIONS = tuple("txt pdf png csv zip doc mp3 html json py".split())
_SITES = tuple("com org net de fr io".split())
_NUMBERS = tuple(map(str, range(2, 500)))


def _is_path(text: str) -> bool:
    return text.startswith("/")


def _noun(rng: random.Random) -> str:
    return rng.choice(SHORT_NOUNS)


def _simple() -> tuple[tuple[str, str, Source, Callable[[str], str]], ...]:
    def full_name(rng: random.Random) -> str:
        return f"{rng.choice(FIRST_NAMES)} {rng.choice(_SURNAMES)}"

    def surname_first(rng: random.Random) -> str:
        return f"{rng.choice(_SURNAMES)}, {rng.choice(FIRST_NAMES)}"

    def email(rng: random.Random) -> str:
        return f"{rng.choice(FIRST_NAMES).lower()}@{_noun(rng)}.{rng.choice(_SITES)}"

    def file_name(rng: random.Random) -> str:
        return f"{_noun(rng)}.{rng.choice(_EXTENSIONS)}"

    def path(rng: random.Random) -> str:
        return "/".join(("", *rng.sample(SHORT_NOUNS, rng.choice((2, 4, 5)))))

    return (
        ("first_name", "full_name", full_name, lambda text: items_of(text, " ", 2)[0]),
        ("last_name", "full_name", full_name, lambda text: items_of(text, " ", 2)[1]),
        ("first_name", "surname_first", surname_first, lambda text: items_of(text, ", ", 2)[1]),
        ("last_name", "surname_first", surname_first, lambda text: items_of(text, ", ", 2)[0]),
        ("user", "email", email, lambda text: items_of(text, "@", 2)[0]),
        ("domain", "email", email, lambda text: items_of(text, "@", 2)[1]),
        ("quoted", "quotes", _marked('"', '"'), _between('"', '"')),
        ("bracketed", "parentheses", _marked("(", ")"), _between("(", ")")),
        ("number", "phrase_number", _marked("", "", _NUMBERS), _only(str.isdigit)),
        ("hashtag", "phrase_hash", _marked("#", ""), lambda text: text.split("#")[1].split(" ")[0]),
        ("capital", "phrase_name", _marked("", "", FIRST_NAMES, 4), _only_of(5, str.istitle)),
        ("caps", "phrase_caps", _marked("", "", tuple(word.upper() for word in SHORT_NOUNS)), _only(str.isupper)),
        ("extension", "file_name", file_name, lambda text: items_of(text, ".", 2)[1]),
        ("base", "file_name", file_name, lambda text: items_of(text, ".", 2)[0]),
        ("file", "path", path, where(_is_path, lambda text: text.split("/")[-1])),
        ("folder", "path", path, where(_is_path, lambda text: text.split("/")[1])),
        ("key", "pair", lambda rng: f"{_noun(rng)}={_noun(rng)}", lambda text: items_of(text, "=", 2)[0]),
        ("value", "pair", lambda rng: f"{_noun(rng)}={_noun(rng)}", lambda text: items_of(text, "=", 2)[1]),
        ("left", "arrow", lambda rng: f"{_noun(rng)} -> {_noun(rng)}", lambda text: items_of(text, " -> ", 2)[0]),
        ("right", "arrow", lambda rng: f"{_noun(rng)} -> {_noun(rng)}", lambda text: items_of(text, " -> ", 2)[1]),
        ("host", "url", lambda rng: f"www.{_noun(rng)}.{rng.choice(_SITES)}", lambda text: items_of(text, ".", 3)[1]),
    )


def _record_task(layout: str, draw: Callable[[random.Random], Record], show: Layout, field: str) -> BuiltinTask:
    def both(rng: random.Random) -> tuple[str, str]:
        record = draw(rng)
        return show(rng, record), record[field]

    return drawn(FAMILY, f"{field}_from_{layout}", {"field": field, "layout": layout}, both, wording)


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; cities of JSON and ages of rows, held out, are not among them."""
    records = (
        _record_task(layout, draw, show, field) for layout, draw, show, fields in _RECORDS for field in fields.split()
    )
    simple = (
        further(FAMILY, f"{field}_from_{layout}", {"field": field, "layout": layout}, source, answer, wording)
        for field, layout, source, answer in _simple()
    )
    return (*records, *simple)
