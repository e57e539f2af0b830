"""The front matter of a card: the YAML between two lines of ``---`` at the start of a ``README.md``."""

from pathlib import Path

LONGEST = 1 << 16  # bytes at the start of a card within which its front matter has to end


def front_matter(card: Path) -> str:
    """Return the YAML text at the start of a card; empty if there is no card, or no front matter in its first 64 KiB.

    A card may come from anybody, so the lines are compared without a regular expression, which could take very long.

    Args:
        card: the path of the ``README.md``.
    """
    if not card.is_file():
        return ""
    with card.open("rb") as handle:
        lines = handle.read(LONGEST).decode("utf-8", errors="replace").lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return ""
    ends = [index for index, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"]
    return "\n".join(lines[1 : ends[0]]) if ends else ""
