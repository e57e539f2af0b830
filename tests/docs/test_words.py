"""The words of the glossary are those of pages, help and code; the private ones of earlier days are gone."""

import re
import runpy
from pathlib import Path

import pytest

from icmlora_cli.report.result import Result

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
TEMPLATES = ROOT / "icmlora_cli" / "report" / "templates"
SUFFIXES = {".md", ".py", ".js", ".css", ".jinja", ".yaml"}

# A word, and the lines in which it may stand for something else or for what 0.1.0 wrote.
PRIVATE = {
    "rung": r"\brungs?\b",
    "ladder": r"\bladders?\b",
    "cell": r"\bcells?\b|cellOf|CELLS",
    "Fleet": r"Fleet|\bfleet\b",
    "Shelf": r"Shelf|\bshelf\b",
    "Moment": r"Moment",
    "Maker": r"Maker",
}
ALLOWED = {
    "rung": (
        r"--methods, --rungs",
        r'"--methods", "--rungs"',
        r"``rungs``, the name of 0\.1\.0",
        r'"methods", "rungs"',
        r"called a method a rung|version 1 called rungs and cells",
        r"^_OLD_KEYS = |whose names for method and score",
        r'"--rungs", hidden=True|\(rungs or \(\)\)',
    ),
    "ladder": (r"It is a ladder of what a method may know", r"kitchen ladder lantern"),
    "cell": (
        r"\btable cell",
        r"[Ee]mpty cells?\b",
        r"more cells than columns",
        r"called a method a rung|version 1 called rungs and cells",
        r"^_OLD_KEYS = |whose names for method and score",
        r"A line or cell may have|a row's cell;|the cell is missing|the cell, which should|of a cell of a CSV file",
        r"with one cell for each|the cells of a row|only its cells|wide as their cells",
        r"\bfor cell in (row|line|column)|in cells\)|for cells in|enumerate\(zip|_is_figure|return cell|pad \+ cell",
        r"rich\.cells",
    ),
}


def texts() -> list[Path]:
    """Return the pages, the recipes and the package, without the word lists of the built-in tasks."""
    folders = ("docs", "icmlora_cli", "recipes", "benchmarks")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    builtin = ROOT / "icmlora_cli" / "tasks" / "builtin"
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(path for path in paths if builtin not in path.parents)]


@pytest.mark.parametrize("word", PRIVATE)
def test_private_words_are_gone(word: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(PRIVATE[word], line) and not any(re.search(allowed, line) for allowed in ALLOWED.get(word, ()))
    ]
    assert found == []


def test_the_ladder_is_named_once() -> None:
    assert sum(path.read_text(encoding="utf-8").count("ladder of") for path in texts()) == 1


def test_every_term_is_explained_under_a_heading_of_its_own() -> None:
    parts = re.split(r"^### ", GLOSSARY.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    terms = {part.splitlines()[0]: part.strip().split("\n\n")[0].partition("\n")[2] for part in parts}
    assert len(terms) == len(parts) >= 50
    assert [term for term, words in terms.items() if not words.endswith((".", ".)"))] == []
    anchors = runpy.run_path(str(ROOT / "docs" / "check_links.py"))["anchors"](GLOSSARY)
    assert len(anchors) == len(terms) + GLOSSARY.read_text(encoding="utf-8").count("\n## ") + 1


def test_the_glossary_comes_first() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\(([^)]+)\)", index)[0] == "glossary.md"
    assert "](docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_reports_scripts_ask_a_result_for_keys_that_it_has() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.js")))
    keys = set(re.findall(r"\bRESULT\.([a-z_]+)", text))
    assert {"methods", "scores", "tasks"} <= keys <= Result.model_fields.keys()
