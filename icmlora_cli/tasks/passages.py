"""Plain text cut into passages, at paragraph ends where that is possible."""

import re

_EMPTY_LINES = re.compile(r"\n(?:[ \t\f\v]*\n)+")
_LONG = 1.5  # a paragraph longer than so many passages is cut within: at a line end, a sentence's end, or a space
_SHORT = 0.3  # an end shorter than so much of a passage goes to the passage before it
_ENDS = ("\n", ". ", " ")


def cut(text: str, size: int) -> list[str]:
    """Cut a text into passages of about ``size`` characters.

    Paragraphs (what lies between empty lines) are put together until they are that long; a paragraph that is much
    longer is cut at the end of a line, else of a sentence, else of a word. A short rest goes to the passage before.

    Args:
        text: any text; line ends may be of any system.
        size: characters of a passage, about.

    Returns:
        The passages, none of them empty, without white space at their ends; paragraphs have one empty line between.
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
    """Return the pieces of a paragraph: one, unless it is much longer than ``size``; then each is that long, about."""
    pieces = []
    while len(paragraph) > _LONG * size:
        at = _end(paragraph, size)
        pieces.append(paragraph[:at].rstrip())
        paragraph = paragraph[at:].lstrip("\n ") if paragraph[at - 1] != "\n" else paragraph[at:]
    return [*pieces, paragraph]


def _end(paragraph: str, size: int) -> int:
    """Return where to cut: after the last end in the second half of the first ``size`` characters."""
    for end in _ENDS:
        at = paragraph.rfind(end, size // 2, size)
        if at >= 0:
            return at + len(end)
    return size
