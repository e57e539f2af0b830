"""More ways to write a number: ordinal words, and back from ordinals."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, further, table
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.numbers import number_words, ordinal, roman
from icmlora_cli.tasks.builtin.types import BuiltinTask

FAMILY = "numerals"
_IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def ordinal_words(value: int) -> str:
    """Spell an ordinal, such as twenty-first, of a number from 1 to 999."""
    text = number_words(value)
    cut = max(text.rfind("-"), text.rfind(" ")) + 1
    head, last = text[:cut], text[cut:]
    if last in _IRREGULAR:
        return head + _IRREGULAR[last]
    return head + (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")


_WRITE: dict[str, Callable[[int], str]] = {
    "digits": str,
    "words": number_words,
    "roman": roman,
    "ordinal": ordinal,
    "ordinal_words": ordinal_words,
}
_SAY = {
    "digits": "digits|digits|figures|ordinary numerals",
    "words": "[English |]words|[English |]number words",
    "roman": "Roman numerals|Roman notation",
    "ordinal": "[a/an |an abbreviated ]ordinal like 21st|the short ordinal form like 3rd",
    "ordinal_words": "[a spelled-out ordinal|an ordinal word] like third|the ordinal in words like fifth",
}
_GIVEN = {
    "digits": "a number in [digits|figures]|a number",
    "words": "a number in [English |]words|a [number word|spelled-out number]",
    "roman": "a Roman numeral|a number in Roman numerals",
    "ordinal": "an ordinal [such as|like] 21st|a short ordinal like 3rd",
    "ordinal_words": "an ordinal [in words|word] like third|a spelled-out ordinal",
}
_PAIRS = (
    *(("digits", "ordinal_words"), ("words", "ordinal_words"), ("ordinal", "ordinal_words")),
    *(("ordinal_words", "digits"), ("ordinal_words", "words"), ("ordinal_words", "ordinal")),
    *(("ordinal", "digits"), ("ordinal", "words")),
)


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    source, target = axes["from"], f"[{_SAY[axes['to']]}]"
    named = {"roman": "Roman numeral", "words": "number [in words|word]", "digits": "number"}.get(source, "ordinal")
    lead = "in" if axes["to"] in ("digits", "words", "roman") else "as"
    as_target = f"{lead} {target}"
    return Wording(
        _GIVEN[source],
        f"[write|rewrite|give|express] the {named} {as_target}|[convert|change|turn|translate] the {named} [to"
        f"|into] {target}",
        f"the [same |]{named.replace('Roman numeral', 'number')} {as_target}|the {named} written {as_target}",
    )


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; none has Roman numerals, where the held-out ones are."""
    tasks = []
    for source, target in _PAIRS:
        high = 199 if "ordinal_words" in (source, target) else 399
        draw, answer = table({_WRITE[source](value): _WRITE[target](value) for value in range(1, high + 1)})
        tasks.append(further(FAMILY, f"{source}_to_{target}", {"from": source, "to": target}, draw, answer, wording))
    return tuple(tasks)
