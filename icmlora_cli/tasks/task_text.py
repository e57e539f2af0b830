"""A task in words, as people type it: trimmed and checked before anything is loaded."""

from icmlora_cli.errors import UsageError

MAX_TEXT = 2000  # characters


def checked_text(text: str) -> str:
    """Return a task's text, trimmed.

    Raises:
        UsageError: if it is empty, longer than 2,000 characters, or not valid Unicode.
    """
    stripped = " ".join(text.split())
    if any("\ud800" <= char <= "\udfff" for char in stripped):
        raise UsageError(
            "the task text is not valid Unicode: it holds half of a surrogate pair", hint="type it in UTF-8"
        )
    if not stripped:
        raise UsageError(
            "the task text is empty", hint='say what the adapter should do: icmlora gen "Give the antonym."'
        )
    if len(stripped) > MAX_TEXT:
        raise UsageError(
            f"the task text has {len(stripped):,} characters; at most {MAX_TEXT:,} are read",
            hint="say the task in a sentence or two",
        )
    return stripped
