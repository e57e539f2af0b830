"""Text that others wrote, in Markdown: as code, so that it is nothing but text."""

import re

from icmlora_cli.report.shown import one_line

LONGEST = 200  # characters of a name


def quoted(text: str) -> str:
    """Return text as an indented code block, in which Markdown and HTML stay text."""
    return f"    {one_line(text)}"


def code(text: str, longest: int | None = LONGEST) -> str:
    """Return a name as a code span, whatever is in it, cut to so many characters."""
    plain = one_line(text, longest)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    pad = " " if not plain.strip(" ") or plain.strip() != plain or "`" in (plain[0], plain[-1]) else ""
    return f"{fence}{pad}{plain}{pad}{fence}"
