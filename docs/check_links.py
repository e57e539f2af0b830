"""Check that relative links of the Markdown pages outside of the site lead to a file, and their anchors to a heading.

MkDocs checks those within the site (``mkdocs build --strict``).
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def faults(root: Path = ROOT) -> list[str]:
    """Return one line a link that leads nowhere, for the pages in the root and in benchmarks/."""
    found = []
    for page in sorted([*root.glob("*.md"), *root.glob("benchmarks/*.md")]):
        for link in LINK.findall(prose(page)):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue  # an address, not a file
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            lost = not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target))
            if lost:
                found.append(f"{page.relative_to(root)}: {link} leads nowhere")
    return found


if __name__ == "__main__":
    lines = faults()
    print("\n".join(lines) or "every relative link leads somewhere", file=sys.stderr if lines else sys.stdout)
    raise SystemExit(1 if lines else 0)
