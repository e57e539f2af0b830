"""What a built-in task is, and the small helpers that every family builds its tasks with."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from icmlora_cli.tasks.examples import Example

Draw = Callable[[random.Random], Example]

MAX_MISSES = 3000
"""Draws in a row that bring no new input before a domain counts as exhausted."""


@dataclass(frozen=True)
class BuiltinTask:
    """One text task whose examples are drawn by code."""

    name: str
    family: str
    axes: tuple[tuple[str, str], ...]
    descriptions: tuple[str, ...]
    draw: Draw
    held_out: bool = False
    answer: Callable[[str], str] | None = None
    """Computes the output of an input where that is a pure function; a ``ValueError`` says the input does not fit."""

    def examples(self, n: int = 400, seed: int = 0) -> tuple[Example, ...]:
        """Draw examples with distinct inputs; a smaller n gives a prefix of a larger one.

        Args:
            n: The most examples to return.
            seed: Another seed gives another order and choice.

        Returns:
            Up to ``n`` examples, fewer where the domain of the task is smaller.
        """
        rng = random.Random(f"icmlora builtin {self.name} {seed}")
        found: dict[str, Example] = {}
        misses = 0
        while len(found) < n and misses < MAX_MISSES:
            example = self.draw(rng)
            if example.input in found:
                misses += 1
            else:
                found[example.input] = example
                misses = 0
        return tuple(found.values())


def fill(templates: Sequence[str], **values: str) -> tuple[str, ...]:
    """Fill description templates and start each with a capital letter.

    Args:
        templates: Sentences with named ``{fields}``.
        values: The text of each field.

    Returns:
        One sentence a template, in order.
    """
    filled = (template.format(**values) for template in templates)
    return tuple(sentence[0].upper() + sentence[1:] for sentence in filled)


def mapped(source: Callable[[random.Random], str], answer: Callable[[str], str]) -> Draw:
    """Make a draw whose output is a function of the input text.

    Args:
        source: Draws an input.
        answer: Computes the output for it.

    Returns:
        The draw function of a task.
    """

    def draw(rng: random.Random) -> Example:
        text = source(rng)
        return Example(text, answer(text))

    return draw


def chosen(words: Sequence[str]) -> Callable[[random.Random], str]:
    """Make a source that draws one word of a list.

    Args:
        words: The words to draw from.

    Returns:
        A source for ``mapped``.
    """
    pool = tuple(words)

    def source(rng: random.Random) -> str:
        return rng.choice(pool)

    return source


def joined(words: Sequence[str], low: int, high: int, sep: str = ", ") -> Callable[[random.Random], str]:
    """Make a source that draws several different words and joins them.

    Args:
        words: The words to draw from.
        low: The fewest words in one input.
        high: The most words in one input.
        sep: What stands between two words.

    Returns:
        A source for ``mapped``.
    """
    pool = tuple(words)

    def source(rng: random.Random) -> str:
        return sep.join(rng.sample(pool, rng.randint(low, high)))

    return source


def make(
    family: str,
    name: str,
    axes: Mapping[str, str],
    descriptions: Sequence[str],
    draw: Draw,
    held_out: Sequence[str] = (),
) -> BuiltinTask:
    """Build a task, marking it held out when its family lists its name.

    Args:
        family: The family's name.
        name: The task's name.
        axes: What varies inside the family, and this task's value of each.
        descriptions: Paraphrases of the instruction.
        draw: Draws one example.
        held_out: Names of the family's unseen combinations.

    Returns:
        The task.
    """
    return BuiltinTask(name, family, tuple(axes.items()), tuple(descriptions), draw, name in held_out)
