"""Text that others wrote, as it may be shown: on a terminal, in JSON, in a line."""

import re

# C0 but tab and newline, DEL, C1 (a terminal obeys ESC and CSI), direction overrides, line separators, lone surrogates
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return text in which what would steer a terminal is written out, such as ``\x1b``; newlines and tabs stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_json(text: str) -> str:
    r"""Return JSON with the same value, in which such characters are escaped, as ``\u009b``."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str, longest: int | None = None) -> str:
    """Return text with a space for all that is not printable, newlines too.

    Args:
        text: anything.
        longest: characters that are kept; a longer one ends in ``...``.
    """
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain if longest is None or len(plain) <= longest else f"{plain[: longest - 3]}..."
