"""Make the pictures of the pages from what was measured; ``--check`` says which are not what their data gives.

``comparison.svg`` is drawn from the means of the demo's ``result.json`` (``demo.json``), and ``demo.svg`` is what the
demo printed (``demo.txt``), as rich exports a terminal. ``way.svg`` is drawn by hand.
"""

import argparse
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {
    "seen": "six tasks that it learned",
    "unseen combination": "two close relatives",
    "unseen family": "a task unlike them",
}
NAMES = {
    "base": "the model alone",
    "described": "told the task in its prompt",
    "average": "the mean of the six adapters",
    "swapped-text": "an adapter made of another task's sentence",
    "generated": "an adapter made of the task's sentence",
    "harvested": "the adapter that was trained on the task",
}
BLUE, GREY = "#0969da", "#8c959f"


def comparison(data: str) -> str:
    """Return a chart of the means of exact match with their intervals, a panel for each part, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "icmlora", "font.family": "sans-serif", "font.size": 11}
    means = {(mean["part"], mean["method"]): mean["figure"] for mean in json.loads(data)["means"]}
    figure, panels = pyplot.subplots(1, len(PARTS), figsize=(10, 2.8), sharey=True, sharex=True)
    for panel, (part, title) in zip(panels, PARTS.items(), strict=True):
        for row, method in enumerate(reversed(NAMES)):
            value = means.get((part, method))
            if value is None:
                continue
            colour = BLUE if method == "generated" else GREY
            panel.plot([value["low"], value["high"]], [row, row], color=colour, linewidth=5, alpha=0.35)
            panel.plot(value["value"], row, "o", color=colour)
        panel.set_title(title, fontsize=11)
        panel.set_xlim(-0.04, 1.04)
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)
    panels[0].set_yticks(range(len(NAMES)), list(reversed(NAMES.values())))
    figure.supxlabel("share of answers that are right, mean and 95 % interval", fontsize=10)
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    pyplot.close(figure)
    return text.getvalue()


def terminal(data: str) -> str:
    """Return what a command printed as a picture of a terminal, as SVG without a font from elsewhere."""
    from rich.console import Console
    from rich.text import Text

    lines = data.splitlines()
    console = Console(record=True, width=max(map(len, lines)) + 1, file=io.StringIO())
    for line in lines:
        style = "bold green" if line.startswith("$") else "dim" if line.startswith("[") else ""
        console.print(Text(line, style=style))
    svg = console.export_svg(title="icmlora demo", unique_id="demo")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


PICTURES: dict[str, tuple[str, Callable[[str], str]]] = {
    "comparison.svg": ("demo.json", comparison),
    "demo.svg": ("demo.txt", terminal),
}


def stamp(source: Path) -> str:
    """Return the comment that says of which data and by which script a picture was made."""
    digest = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    return f"<!-- {source.name} and {Path(__file__).name}: {digest} -->"


def main() -> int:
    """Make all pictures, or check that each was made of the data and the script that are there now."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, (source, draw) in PICTURES.items():
        picture, mark = HERE / name, stamp(HERE / source)
        if not check:
            picture.write_text(
                f"{draw((HERE / source).read_text(encoding='utf-8')).rstrip()}\n{mark}\n", encoding="utf-8"
            )
        elif not picture.is_file() or mark not in picture.read_text(encoding="utf-8"):
            stale.append(f"docs/pictures/{name} is older than {source} or its script: python docs/pictures/make.py")
    print("\n".join(stale), end="\n" if stale else "", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
