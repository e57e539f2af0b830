"""Joining, wrapping and reversing the words of a phrase or the items of a list."""

from collections.abc import Callable, Sequence

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, joined, make, mapped
from icmlora_cli.tasks.builtin.words import SHORT_NOUNS

FAMILY = "formats"
HELD_OUT = ("underscores_list", "reverse_words")

_SEPARATORS = {"words": " ", "list": ", "}
_SOURCES = {"words": "space-separated words", "list": "comma-separated items"}

Rewrite = Callable[[Sequence[str], str], str]

_REWRITES: dict[str, tuple[str, Rewrite]] = {
    "hyphens": ("joined by hyphens", lambda parts, _: "-".join(parts)),
    "underscores": ("joined by underscores, in snake case", lambda parts, _: "_".join(parts)),
    "slashes": ("joined by slashes", lambda parts, _: "/".join(parts)),
    "reverse": ("in reverse order", lambda parts, sep: sep.join(reversed(parts))),
    "brackets": ("inside one pair of square brackets", lambda parts, sep: f"[{sep.join(parts)}]"),
    "quotes": (
        "with double quotes around each of them",
        lambda parts, sep: sep.join(f'"{part}"' for part in parts),
    ),
}
_TEMPLATES = (
    "Rewrite the {source} {how}.",
    "Output the {source} of the input {how}.",
    "Take the given {source} and write them {how}.",
    "The input holds {source}, so give them back {how}.",
    "Return all the {source} {how} and change nothing else.",
)


def _draw(rewrite: Rewrite, source: str) -> Draw:
    sep = _SEPARATORS[source]
    return mapped(joined(SHORT_NOUNS, 2, 4, sep), lambda text: rewrite(text.split(sep), sep))


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{op}_{source}",
            {"operation": op, "source": source},
            fill(_TEMPLATES, source=named, how=how),
            _draw(rewrite, source),
            HELD_OUT,
        )
        for op, (how, rewrite) in _REWRITES.items()
        for source, named in _SOURCES.items()
    )
