"""Splitting word lists, which the modules of this package write as running text."""


def words_of(text: str) -> tuple[str, ...]:
    """Return the whitespace-separated words of a text.

    Args:
        text: Words on any number of lines.

    Returns:
        The words, in order.
    """
    return tuple(text.split())
