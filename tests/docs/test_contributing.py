"""CONTRIBUTING.md can be followed to the letter: its new method is added to a copy, tested, and scored."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("icmlora_cli", "recipes", "tests", "docs")


def follow(root: Path) -> None:
    """Do what the steps say: write each file whose name stands before a block, apply each change."""
    steps = TEXT.split("### A new method of the comparison")[1].split("\n### ")[0]
    for found in re.finditer(r"^```(python|diff)\n(.*?)^```$", steps, re.DOTALL | re.MULTILINE):
        language, block = found.groups()
        if language == "python":
            path = root / re.findall(r"`([^`]+\.py)`:\n", steps[: found.start()])[-1]
            assert not path.exists()
            path.write_text(block, encoding="utf-8")
        else:
            header, *lines = block.splitlines()
            apply(root / header.removeprefix("--- "), lines)


def apply(path: Path, lines: list[str]) -> None:
    """Put the lines with ``+`` where the lines around them are; there has to be one such place."""
    old = "".join(f"{line[1:]}\n" for line in lines if line.startswith(" "))
    new = "".join(f"{line[1:]}\n" for line in lines)
    text = path.read_text(encoding="utf-8")
    assert f"\n{text}".count(f"\n{old}") == 1, f"{path.name} has no single place with {old!r}"
    path.write_text(f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:], encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project in which the steps were followed."""
    root = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, root)
    follow(root)
    return root


def run(copy: Path, *command: object, **variables: object) -> str:
    """Run Python on the copy, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    environment |= {name: str(value) for name, value in variables.items()}
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=copy, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_new_methods_test_passes(copy: Path) -> None:
    assert "1 passed" in run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/methods/test_one_example.py")


def test_the_tests_of_the_docs_name_no_other_place(copy: Path) -> None:
    """Only the long row of docs/recipes.md is not written out in the steps."""
    row = re.compile(r"(\| `methods` \|.*?'in-context', )")
    path = copy / "docs" / "recipes.md"
    path.write_text(row.sub(r"\1'one-example', ", path.read_text(encoding="utf-8")), encoding="utf-8")
    wanted = "every_method or setting or map or layers or default_recipes"
    pages = ("tests/docs/test_docs.py", "tests/docs/test_architecture.py")
    assert "passed" in run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", wanted, *pages)


def test_an_evaluation_scores_the_new_method(copy: Path, tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"input": f"word {index}", "output": "cat"} for index in range(40)]
    (tmp_path / "task.yaml").write_text(  # JSON is YAML
        json.dumps({"name": "always_cat", "description": "Always answer with cat.", "examples": rows}), encoding="utf-8"
    )
    folders = {"ICMLORA_HOME": tmp_path / "home", "ICMLORA_CACHE": tmp_path / "cache"}
    command = ("-m", "icmlora_cli")
    run(copy, *command, "task", "add", tmp_path / "task.yaml", **folders)
    methods = ("--methods", "one-example,base", "--limit", "3")
    scored = json.loads(
        run(
            copy, *command, "eval", "--base", tiny_bases["llama"], *methods, "-o", tmp_path / "out", "--json", **folders
        )
    )
    assert scored["methods"] == ["base", "one-example"]
    assert [(score["method"], score["reason"]) for score in scored["scores"]] == [("base", None), ("one-example", None)]
