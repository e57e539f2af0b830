"""Dividing examples into parts, by the hash of the input alone, so that an example never changes its part."""

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Literal

Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")
DEFAULT_FRACTIONS: Mapping[str, float] = {"validation": 0.1, "test": 0.2}


def normalised(text: str) -> str:
    """Return ``text`` without differences that do not count: case, runs of white space, and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def part_of(input: str, fractions: Mapping[str, float] = DEFAULT_FRACTIONS) -> Part:
    """Return the part of a task that an input belongs to.

    The SHA-256 of the normalised input, read as a number in [0, 1), is compared with the fractions. Equal inputs are
    in the same part, whatever else is in the task and in whatever order. A larger fraction of ``test`` moves inputs
    from ``validation`` and ``train`` only, and a larger one of ``validation`` from ``train`` only.

    Args:
        input: an example's input.
        fractions: the shares of ``test`` and ``validation``; the rest is ``train``.
    """
    digest = hashlib.sha256(normalised(input).encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    test = fractions.get("test", 0.0)
    if place < test:
        return "test"
    return "validation" if place < test + fractions.get("validation", 0.0) else "train"
