"""Which part an example belongs to: a function of its input alone, so that nothing ever changes sides."""

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Literal

Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")
DEFAULT_FRACTIONS: Mapping[str, float] = {"validation": 0.1, "test": 0.2}


def normalised(text: str) -> str:
    """Return ``text`` without what does not make another input: case, runs of white space, Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def part_of(input: str, fractions: Mapping[str, float] = DEFAULT_FRACTIONS) -> Part:
    """Return the part of a task that an input belongs to.

    The SHA-256 of the normalised input, read as a number in [0, 1), is compared with the fractions. Equal
    inputs share a part, whatever else is in the task, in whatever order; a larger fraction only takes from
    the train part and its neighbour.

    Args:
        input: an example's input.
        fractions: shares of ``test`` and ``validation``; the rest is ``train``.
    """
    digest = hashlib.sha256(normalised(input).encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    test = fractions.get("test", 0.0)
    if place < test:
        return "test"
    return "validation" if place < test + fractions.get("validation", 0.0) else "train"
