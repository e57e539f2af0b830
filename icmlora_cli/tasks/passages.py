"""Cutting plain text into passages, at the ends of paragraphs if possible."""

import re

_EMPTY_LINES = re.compile(r"\n(?:[ \t\f\v]*\n)+")
_LONG = 1.5  # a paragraph longer than that many passages is cut at the end of a line, a sentence or a word
_SHORT = 0.3  # a last passage shorter than this share of ``size`` is added to the passage before it
_ENDS = ("\n", ". ", " ")


def cut(text: str, size: int) -> list[str]:
    """Cut a text into passages of about ``size`` characters.

    Paragraphs, which are separated by empty lines, are joined until they are that long. A paragraph that is much longer
    is cut at the end of a line, else of a sentence, else of a word. A short rest is added to the passage before it.

    Args:
        text: any text, with the line ends of any system.
        size: the approximate number of characters of a passage.

    Returns:
        The passages. None of them is empty or ends with white space, and there is one empty line between paragraphs.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    passages: list[str] = []
    current = ""
    for paragraph in _EMPTY_LINES.split(text):
        *whole, rest = _pieces(paragraph.strip("\n").rstrip(), size)
        if whole and len(current) >= size // 2:
            passages.append(current)
            current = ""
        for piece in whole:
            passages.append(_joined(current, piece))
            current = ""
        current = _joined(current, rest)
        if len(current) >= size:
            passages.append(current)
            current = ""
    if passages and len(current) < _SHORT * size:
        passages[-1] = _joined(passages[-1], current)
    elif current:
        passages.append(current)
    return [passage for passage in passages if passage.strip()]


def _joined(one: str, other: str) -> str:
    return "\n\n".join(text for text in (one, other) if text)


def _pieces(paragraph: str, size: int) -> list[str]:
    """Return a paragraph as one piece or, if it is much longer than ``size``, as pieces of about that length."""
    pieces = []
    while len(paragraph) > _LONG * size:
        end = _end(paragraph, size)
        pieces.append(paragraph[:end].rstrip())
        paragraph = paragraph[end:].lstrip("\n ") if paragraph[end - 1] != "\n" else paragraph[end:]
    return [*pieces, paragraph]


def _end(paragraph: str, size: int) -> int:
    """Return where to cut: after the last end of a line, sentence or word in the second half of ``size`` characters."""
    for end in _ENDS:
        start = paragraph.rfind(end, size // 2, size)
        if start >= 0:
            return start + len(end)
    return size
