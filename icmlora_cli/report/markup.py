"""Writes untrusted text into Markdown as code, so that no markup in it has an effect."""

import re

from icmlora_cli.report.shown import one_line

LONGEST = 200  # characters of a name; longer ones are cut


def quoted(text: str) -> str:
    """Return text as an indented code block of one line, in which Markdown and HTML have no effect."""
    return f"    {one_line(text)}"


def code(text: str, longest: int | None = LONGEST) -> str:
    """Return text as a code span, with a fence that is longer than any run of backticks in it.

    Args:
        text: any text.
        longest: the number of characters to which the text is cut; None does not cut it.
    """
    plain = one_line(text, longest)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    pad = " " if not plain.strip(" ") or plain.strip() != plain or "`" in (plain[0], plain[-1]) else ""
    return f"{fence}{pad}{plain}{pad}{fence}"
