"""What a built-in task is: a rule that draws examples, and words that describe it."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from icmlora_cli.registry.examples import Example

Draw = Callable[[random.Random], Example]
TRIES = 40  # draws without a new input before a domain counts as exhausted, times the examples found


@dataclass(frozen=True)
class BuiltinTask:
    """A task whose examples are made by code.

    Args:
        name: unique, snake_case.
        family: what it belongs to.
        axes: what varies inside the family, as (axis, value) pairs.
        descriptions: five or more paraphrases, each a sentence.
        draw: makes one example.
        held_out: an unseen combination: each of its axis values occurs in another task of the family.
    """

    name: str
    family: str
    axes: tuple[tuple[str, str], ...]
    descriptions: tuple[str, ...]
    draw: Draw
    held_out: bool = False

    def examples(self, n: int = 400, seed: int = 0) -> tuple[Example, ...]:
        """Return examples with different inputs, the same everywhere; fewer where the domain has no more.

        Args:
            n: how many, at most. The first k of n are the k that ``n=k`` gives.
            seed: of the draws.
        """
        digest = hashlib.sha256(f"{self.name}:{seed}".encode()).digest()
        source = random.Random(int.from_bytes(digest[:8], "big"))
        found: dict[str, Example] = {}
        misses = 0
        while len(found) < n and misses < TRIES * (len(found) + 10):
            example = self.draw(source)
            if example.input in found:
                misses += 1
            else:
                found[example.input] = example
                misses = 0
        return tuple(found.values())


def ordinal(index: int, count: int) -> str:
    """Return ``first``, ``second`` ... and ``last`` for the end of a list of ``count``."""
    return "last" if index == count - 1 else ("first", "second", "third", "fourth", "fifth")[index]


def number_word(value: int) -> str:
    """Return a number from zero to twelve in words."""
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[value]
