"""The documents say what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from icmlora_cli.config.recipes import KINDS, HarvestRecipe, TrainRecipe, recipe_path, resolve, shipped_recipes
from icmlora_cli.registry.sources import load_examples
from icmlora_cli.registry.task_file import read_task_file
from icmlora_cli.registry.tasks import draft

ROOT = Path(__file__).resolve().parents[2]


def block(page: Path, language: str, after: str = "") -> str:
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"```{language}\n(.*?)```", text[text.index(after) :], re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_readmes_two_commands_are_single_lines() -> None:
    first, second = block(ROOT / "README.md", "bash"), block(ROOT / "README.md", "bash", "## Run the tests")
    assert first.count("\n") == second.count("\n") == 1
    assert first.strip().endswith("icmlora demo") and "pytest" in second


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_good(name: str) -> None:
    kind = name.split("/")[0]
    assert resolve(KINDS[kind], recipe_path(Path(name), kind), kind, {}) is not None


def test_the_default_recipes_are_the_defaults() -> None:
    assert resolve(HarvestRecipe, Path("harvest/default"), "harvest", {}) == HarvestRecipe()
    assert resolve(TrainRecipe, Path("train/default"), "train", {}) == TrainRecipe()


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_in_the_docs_with_its_default(kind: str) -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    text = text[text.index(f"## {kind.capitalize()}") :]
    for name, value in KINDS[kind]().model_dump().items():
        rows = {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        for key, default in rows.items():
            row = re.search(rf"\| `{re.escape(key)}` \| `?([^|`]+)`? \|", text)
            assert row is not None, key
            assert row.group(1).strip() == str(default), key


def test_the_example_task_file_validates(tmp_path: Path) -> None:
    file = tmp_path / "tasks.yaml"
    file.write_text(block(ROOT / "docs" / "tasks.md", "yaml"))
    (spec,) = read_task_file(file)
    assert draft(spec, load_examples(spec, tmp_path, file)).task.counts["test"] > 0


def test_the_command_reference_is_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "docs" / "make_cli_reference.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_relative_links_resolve() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
