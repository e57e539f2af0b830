"""Translating one common word out of English or into it."""

from icmlora_cli.tasks.builtin.types import BuiltinTask, chosen, fill, make, mapped
from icmlora_cli.tasks.builtin.words_bilingual import LANGUAGES, pairs

FAMILY = "bilingual"
HELD_OUT = ("german_to_english",)

_TEMPLATES = (
    "Translate the {source} word into {target}.",
    "Give the {target} word that means the same as the {source} one.",
    "The input is a common {source} word, so reply with its {target} translation.",
    "Say in {target} what the word says in {source}.",
    "Write the {target} equivalent of each {source} word.",
)


def _build(source: str, target: str) -> BuiltinTask:
    foreign = target if source == "English" else source
    table = pairs(foreign)
    if target == "English":
        table = {word: english for english, word in table.items()}
    direction = "from_english" if source == "English" else "to_english"
    return make(
        FAMILY,
        f"{source.lower()}_to_{target.lower()}",
        {"direction": direction, "language": foreign.lower()},
        fill(_TEMPLATES, source=source, target=target),
        mapped(chosen(tuple(table)), lambda word: table[word]),
        HELD_OUT,
    )


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    forward = tuple(_build("English", language) for language in LANGUAGES)
    return forward + tuple(_build(language, "English") for language in ("Spanish", "French", "German"))
