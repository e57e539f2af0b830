"""The map of docs/architecture.md names every module of the package once, and no other."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "icmlora_cli"
WHOLE = ("tasks/builtin/",)  # packages that the map names as one
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the part of the page under a heading of the second level."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def named() -> list[str]:
    """Return the modules that the map names, as paths within the package."""
    modules = []
    for part in re.split(r"^### ", section("The map"), flags=re.MULTILINE)[1:]:
        folder = part.split("`")[1].removeprefix("icmlora_cli/")
        modules += [folder + name for name in re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)]
    return modules


def modules() -> set[str]:
    """Return the modules that there are; a package that the map names as one counts once."""
    paths = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {next((whole for whole in WHOLE if path.startswith(whole)), path) for path in paths}


def test_the_map_names_every_module_once_and_no_other() -> None:
    counts = Counter(named())
    assert sorted(modules() - counts.keys()) == [], "modules that the map does not name"
    assert sorted(counts.keys() - modules()) == [], "modules that the map names and that do not exist"
    assert [name for name, count in counts.items() if count > 1] == []


def test_the_map_is_in_alphabetical_order_within_a_package() -> None:
    by_package: dict[str, list[str]] = {}
    for name in named():
        folder, _, module = name.rstrip("/").rpartition("/")
        by_package.setdefault(folder, []).append(module)
    assert {folder: names for folder, names in by_package.items() if names != sorted(names)} == {}


def test_the_layers_are_those_that_import_linter_checks() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(each for each in settings["tool"]["importlinter"]["contracts"] if "down only" in each["name"])
    wanted = [layer.replace("icmlora_cli.", "") for layer in contract["layers"]]
    block = section("The layers").split("```")[1].strip().splitlines()
    assert [re.split(r" {2,}", line)[0] for line in block] == wanted


def test_the_ways_of_the_data_name_modules_that_exist() -> None:
    text = section("The way of the data")
    layers = "tasks|registry|lm|weights|generator|workflows|serving|methods|report"
    for name in re.findall(rf"\b((?:{layers})(?:\.[a-z_]+)+)\b", text):
        path = PACKAGE / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_class_names_are_unique_in_the_package() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
