"""What every module of further tasks builds them with."""

import random
from collections.abc import Callable, Mapping, Sequence

from icmlora_cli.tasks.builtin.grammar import Wording, fixed_descriptions
from icmlora_cli.tasks.builtin.types import BuiltinTask, mapped
from icmlora_cli.tasks.builtin.words import SHORT_NOUNS
from icmlora_cli.tasks.builtin.words_kinds import ANIMALS, COLORS, FIRST_NAMES, FRUITS
from icmlora_cli.tasks.examples import Example

Axes = Mapping[str, str]
Source = Callable[[random.Random], str]
WordingOf = Callable[[Axes], Wording]

COUNT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
POOLS: tuple[tuple[str, ...], ...] = (SHORT_NOUNS, SHORT_NOUNS, ANIMALS[:50], FRUITS[:20], COLORS[:20], FIRST_NAMES)


def several(value: str | int) -> str:
    """Return the alternatives of a small number in a description: mostly its word, sometimes its digit."""
    word = COUNT_WORDS[int(value)]
    return f"[{word}|{word}|{int(value)}]"


def items_of(text: str, sep: str, count: int | None = None) -> list[str]:
    """Split a list, checking how many items it has.

    Args:
        text: The list.
        sep: What stands between two items.
        count: The number of items that fits, or None for any.

    Returns:
        The items; a list of another length raises ``ValueError``.
    """
    items = text.split(sep)
    if count is not None and len(items) != count:
        raise ValueError(f"not {count} items: {text!r}")
    return items


def where(test: Callable[[str], bool], answer: Callable[[str], str]) -> Callable[[str], str]:
    """Keep an answer function to the inputs that pass a test; any other raises ``ValueError``."""

    def run(text: str) -> str:
        if not test(text):
            raise ValueError(f"the input does not fit: {text!r}")
        return answer(text)

    return run


def lists(count: int, sep: str = ", ", pools: Sequence[Sequence[str]] = POOLS) -> Source:
    """Make a source of lists of different words of one pool."""
    return lambda rng: sep.join(rng.sample(tuple(rng.choice(pools)), count))


def _strict(answer: Callable[[str], str]) -> Callable[[str], str]:
    def run(text: str) -> str:
        try:
            return answer(text)
        except (LookupError, TypeError, StopIteration) as error:
            raise ValueError(f"the input does not fit: {text!r}") from error

    return run


def further(
    family: str, name: str, axes: Axes, source: Source, answer: Callable[[str], str], wording: WordingOf
) -> BuiltinTask:
    """Build a further task: a pure function of its input, with descriptions from the family's wording.

    Args:
        family: The family's name.
        name: The task's name.
        axes: What varies inside the family, and this task's value of each.
        source: Draws an input.
        answer: Computes its output.
        wording: The family's phrases, by axes.

    Returns:
        The task.
    """
    texts = fixed_descriptions(name, wording(axes))
    return BuiltinTask(name, family, tuple(axes.items()), texts, mapped(source, answer), answer=_strict(answer))


def drawn(
    family: str, name: str, axes: Axes, both: Callable[[random.Random], tuple[str, str]], wording: WordingOf
) -> BuiltinTask:
    """Build a further task that draws its input and output together.

    Args:
        family: The family's name.
        name: The task's name.
        axes: What varies inside the family, and this task's value of each.
        both: Draws an input and its output.
        wording: The family's phrases, by axes.

    Returns:
        The task, without an ``answer``.
    """
    return BuiltinTask(
        name, family, tuple(axes.items()), fixed_descriptions(name, wording(axes)), lambda rng: Example(*both(rng))
    )


def table(pairs: Mapping[str, str]) -> tuple[Source, Callable[[str], str]]:
    """Make the source and the answer of a task that looks words up.

    Args:
        pairs: Input to output.

    Returns:
        The source and the answer function, which raises ``ValueError`` for an unknown input.
    """
    known = dict(pairs)
    inputs = tuple(known)

    def answer(text: str) -> str:
        if text not in known:
            raise ValueError(f"not in the table: {text!r}")
        return known[text]

    return (lambda rng: rng.choice(inputs)), answer
