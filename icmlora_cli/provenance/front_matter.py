"""The front matter of a card: the YAML between two lines of ``---`` at the start of a ``README.md``."""

from pathlib import Path

LONGEST = 1 << 16  # bytes of a card in which its front matter has to end


def front_matter(card: Path) -> str:
    """Return the YAML text in front of a card; empty where there is no card, or none in its first 64 KiB.

    It takes time in proportion to the bytes that are read, whatever they are; a card may come from anybody.

    Args:
        card: the ``README.md``.
    """
    if not card.is_file():
        return ""
    with card.open("rb") as handle:
        lines = handle.read(LONGEST).decode("utf-8", errors="replace").lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return ""
    ends = [index for index, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"]
    return "\n".join(lines[1 : ends[0]]) if ends else ""
