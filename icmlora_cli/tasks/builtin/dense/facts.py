"""Answers that are looked up: capitals, young animals, opposites, and other pairs, forward and back."""

from collections import Counter
from collections.abc import Callable, Mapping

from icmlora_cli.tasks.builtin import words_facts as facts
from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further, table
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask

FAMILY = "relation"

Row = tuple[Mapping[str, str], str, str]

_RELATIONS: dict[str, Row] = {
    "capital": (facts.CAPITALS, "country", "capital[ city|]"),
    "language": (facts.LANGUAGES_SPOKEN, "country", "[main|official] language [spoken in|of]"),
    "continent": (facts.CONTINENTS, "country", "continent"),
    "nationality": (facts.PEOPLE, "country", "[nationality adjective|adjective for the people]"),
    "young": (facts.YOUNG, "animal", "[young|baby|name of the young]"),
    "sound": (facts.SOUNDS, "animal", "[sound|typical sound|cry]"),
    "legs": (facts.LEGS, "animal", "number of legs"),
    "opposite": (facts.OPPOSITES, "word", "[opposite|antonym|contrary]"),
    "female": (facts.PAIRED_PEOPLE, "male word", "female [counterpart|form]"),
    "color": (facts.OBJECT_COLORS, "thing", "[usual|typical] [color|colour]"),
    "workplace": (facts.WORKPLACES, "job", "[place of work|workplace]"),
    "material": (facts.MATERIALS, "thing", "[usual |]material"),
    "short_form": (facts.SHORT_FORMS, "phrase", "[contraction|short form with an apostrophe|contracted form]"),
    "british": (facts.BRITISH, "American spelling", "British spelling"),
    "symbol": (facts.SYMBOLS, "chemical element", "[chemical |]symbol"),
}
_BACK_OF = {
    "capital": "capital city",
    "nationality": "nationality",
    "female": "female word",
    "short_form": "contraction",
    "british": "British spelling",
    "symbol": "chemical symbol",
}
_BACK = {
    "capital": "country [with|that has] this capital",
    "nationality": "country of this nationality",
    "female": "male [counterpart|form] of the word",
    "short_form": "[full form|long form|uncontracted form] of the contraction",
    "british": "American spelling of the word",
    "symbol": "[name of the |][chemical |]element with this symbol",
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    name, shape = axes["relation"], axes["shape"]
    given, answer = _RELATIONS[name][1:]
    if shape == "back" and name in _BACK:
        what, given = f"the {_BACK[name]}", _BACK_OF[name]
    elif name == "language":
        what = "the [main|official] language [of|spoken in] the [given |]country"
    else:
        noun = {
            "male word": "[word|male word]",
            "American spelling": "word",
            "chemical element": "[chemical |]element",
        }.get(given, given)
        what = f"the {answer} of the [given |]{noun}"
    how = {"capitals": " in [capital letters|uppercase|all caps]"}.get(shape, "")
    name_it = "[name|name|give|write|output|say]" if name != "legs" else "[give|write|output|say]"
    return Wording(
        f"[a/an|one] {given}|the name of a/an {given}" if given in ("country", "animal") else f"a/an {given}",
        f"{name_it} {what}{how}|{{give}} {what}{how}",
        f"{what}{how}",
        f"what is {what}{how}",
    )


def _back(pairs: Mapping[str, str]) -> dict[str, str]:
    counts = Counter(pairs.values())
    return {right: left for left, right in pairs.items() if counts[right] == 1}


def _task(name: str, shape: str, source: Source, answer: Callable[[str], str]) -> BuiltinTask:
    ending = "" if shape == "word" else f"_{shape}"
    return further(FAMILY, f"relation_{name}{ending}", {"relation": name, "shape": shape}, source, answer, wording)


def dense() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    tasks = []
    for name, row in _RELATIONS.items():
        pairs = dict(row[0])
        if name == "opposite":
            pairs = _back(pairs) | pairs
        tasks.append(_task(name, "word", *table(pairs)))
        if name in _BACK:
            tasks.append(_task(name, "back", *table(_back(pairs))))
        if name in ("capital", "continent", "opposite", "color", "nationality"):
            tasks.append(_task(name, "capitals", *table({key: value.upper() for key, value in pairs.items()})))
    return tuple(tasks)
