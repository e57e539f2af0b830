"""Tasks that take a name, a city or an age out of a sentence, a JSON object, a CSV row or key=value pairs."""

import json
import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.builtin.words_kinds import CITIES, FIRST_NAMES
from icmlora_cli.tasks.examples import Example

FAMILY = "extraction"
HELD_OUT = ("city_from_json", "age_from_csv")

Record = dict[str, str]

_SENTENCES = (
    "{name} is {age} and lives in {city}.",
    "{name} from {city} turned {age}.",
    "At {age}, {name} moved to {city}.",
    "In {city} I met {name}, aged {age}.",
)
_FIELDS = {"name": "the name of the person", "city": "the city", "age": "the age"}


def _shuffled(rng: random.Random, record: Record) -> Record:
    keys = list(record)
    rng.shuffle(keys)
    return {key: record[key] for key in keys}


def _sentence(rng: random.Random, record: Record) -> str:
    return rng.choice(_SENTENCES).format(**record)


def _json(rng: random.Random, record: Record) -> str:
    items = _shuffled(rng, record).items()
    return json.dumps({key: int(value) if key == "age" else value for key, value in items})


def _csv(_: random.Random, record: Record) -> str:
    return ",".join(record.values())


def _pairs(rng: random.Random, record: Record) -> str:
    return "; ".join(f"{key}={value}" for key, value in _shuffled(rng, record).items())


_LAYOUTS: dict[str, tuple[str, Callable[[random.Random, Record], str]]] = {
    "sentence": ("a sentence", _sentence),
    "json": ("a JSON object", _json),
    "csv": ("a CSV row of name, city and age", _csv),
    "pairs": ("a line of key=value pairs", _pairs),
}
_TEMPLATES = (
    "Extract {field} from {layout}.",
    "Read {layout} and output only {field}.",
    "Find {field} in {layout} and copy it.",
    "The input is {layout}, so answer with {field} that it holds.",
    "Given {layout}, return {field} without anything else.",
)


def _draw(field: str, layout: str) -> Draw:
    write = _LAYOUTS[layout][1]

    def draw(rng: random.Random) -> Example:
        age = str(rng.randint(18, 90))
        record = {"name": rng.choice(FIRST_NAMES), "city": rng.choice(CITIES), "age": age}
        return Example(write(rng, record), record[field])

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{field}_from_{layout}",
            {"field": field, "layout": layout},
            fill(_TEMPLATES, field=wanted, layout=shown),
            _draw(field, layout),
            HELD_OUT,
        )
        for field, wanted in _FIELDS.items()
        for layout, (shown, _) in _LAYOUTS.items()
    )
