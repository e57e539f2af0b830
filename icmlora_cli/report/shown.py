"""Makes untrusted text safe to show: on a terminal, in JSON, or in one line."""

import re

# C0 except tab and newline, DEL, C1 (terminals obey ESC and CSI), direction overrides, line separators, lone surrogates
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return text in which characters that steer a terminal are written out, as ``\x1b``; newlines and tabs stay."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def visible_json(text: str) -> str:
    r"""Return JSON of the same value in which characters that steer a terminal are escaped, as ``\u009b``."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str, longest: int | None = None) -> str:
    """Return text with a space in place of each character that is not printable, newlines included.

    Args:
        text: any text.
        longest: the number of characters to which the text is cut, ending in ``...``; None does not cut it.
    """
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if longest is None or len(plain) <= longest else f"{plain[: longest - 3]}..."
