"""The documents say what the code does."""

import re
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

from icmlora_cli.cli.app import app
from icmlora_cli.cli.out import SCHEMA_VERSIONS
from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.evaluate import METHODS, EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import KINDS, recipe_path, resolve, shipped_recipes
from icmlora_cli.config.task_list import read_task_list
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.lm.devices import Device
from icmlora_cli.registry.tasks import draft
from icmlora_cli.report.result import Mean, MethodScore, Result, TaskInfo, Unrelated
from icmlora_cli.tasks.sources import load_examples
from icmlora_cli.tasks.task_file import read_task_file
from icmlora_cli.workflows.adapters.codec_report import CodecReport, Kept, Measured, MetricCost, WidthReport
from icmlora_cli.workflows.doctor import Check
from icmlora_cli.workflows.finetune import FinetuneResult
from icmlora_cli.workflows.gen.batch import BatchEntry
from icmlora_cli.workflows.gen.explain import DistanceRange, Explanation
from icmlora_cli.workflows.gen.generate import GenResult
from icmlora_cli.workflows.gen.options import GenOptions
from icmlora_cli.workflows.gen.select import Candidate, Selection
from icmlora_cli.workflows.merge.merge import MergedAdapter
from icmlora_cli.workflows.merge.write import WrittenModel
from icmlora_cli.workflows.registry.storage import AdapterStorage, GeneratorStorage
from icmlora_cli.workflows.train.train import TrainResult

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
    if kind == "tasks":
        assert read_task_file(recipe_path(Path(name), kind))
        return
    if kind == "lists":
        assert read_task_list(Path(name))
        return
    assert resolve(KINDS[kind], recipe_path(Path(name), kind), kind, {}) is not None


def test_the_default_recipes_are_the_defaults() -> None:
    assert resolve(HarvestRecipe, Path("harvest/default"), "harvest", {}) == HarvestRecipe()
    assert resolve(TrainRecipe, Path("train/default"), "train", {}) == TrainRecipe()
    assert resolve(EvalRecipe, Path("eval/default"), "eval", {}) == EvalRecipe()


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_in_the_docs_with_its_default(kind: str) -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    text = text[text.index(f"## {kind.capitalize()}") :]
    for name, value in KINDS[kind]().model_dump().items():
        rows = {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        if isinstance(vectors := rows.pop("data.vectors", None), dict):
            rows |= {f"data.vectors.{key}": inner for key, inner in vectors.items()}
        for key, default in rows.items():
            row = re.search(rf"\| `{re.escape(key)}` \| `?([^|`]+)`? \|", text)
            assert row is not None, key
            assert row.group(1).strip() == str(default), key


def test_every_setting_of_episodes_is_in_the_docs_with_its_default() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    text = text[text.index("### Episodes") :].replace("\\n", "\n")
    for key, default in EpisodeRecipe().model_dump().items():
        row = re.search(rf"\| `{key}` \| ([^|]+) \|", text)
        assert row is not None, key
        assert row.group(1).strip() == str(default).replace("\\n", "\n"), key


def test_the_example_task_file_validates(tmp_path: Path) -> None:
    file = tmp_path / "tasks.yaml"
    file.write_text(block(ROOT / "docs" / "tasks.md", "yaml"))
    (spec,) = read_task_file(file)
    assert draft(spec, load_examples(spec, tmp_path, file).examples).task.counts["test"] > 0


def test_the_command_reference_is_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "docs" / "make_cli_reference.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def commands() -> list[str]:
    root = typer.main.get_command(app)
    return [
        " ".join([name, inner]).strip()
        for name, command in getattr(root, "commands", {}).items()
        for inner in getattr(command, "commands", {"": None})
    ]


def test_every_commands_json_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    for command in commands():
        version = SCHEMA_VERSIONS.get(command, 1)
        assert f"| `{command}` | `icmlora.{command.replace(' ', '.')}/{version}` |" in text, command


@pytest.mark.parametrize(
    "result",
    [
        *(TrainResult, GenResult, FinetuneResult, Selection, Candidate, Explanation, DistanceRange, BatchEntry),
        *(AdapterStorage, GeneratorStorage, Check, Device),
        *(MergedAdapter, WrittenModel),
        *(CodecReport, WidthReport, MetricCost, Measured, Kept),
    ],
)
def test_every_key_of_a_result_is_in_the_docs(result: type) -> None:
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    assert [item.name for item in fields(result) if f"`{item.name}`" not in text] == []


@pytest.mark.parametrize("name", [item.name for item in fields(GenOptions)])
def test_every_option_of_gen_is_in_the_docs(name: str) -> None:
    assert f"--{name}" in (ROOT / "docs" / "generating.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [name for part in (Result, MethodScore, TaskInfo, Mean, Unrelated) for name in part.model_fields],
)
def test_every_key_of_a_result_file_is_in_the_docs(name: str) -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert f"`{name.rstrip('_')}`" in text


def test_every_method_is_in_the_docs_in_order() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert re.findall(
        r"^\| `([a-z0-9-]+)` \| (?:nothing|text|examples|text and examples|training data) \|", text, re.M
    ) == [*METHODS]


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lines = [line for line in script.splitlines() if line.startswith("command=")]
    told = subprocess.run(
        ["bash", "-c", f'{lines[0]}; printf %s "$command"'], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert told.stdout == block(ROOT / "README.md", "bash", "## Run the tests").strip()
    assert 'bash -euo pipefail -c "$command"' in script


def test_links_lead_somewhere() -> None:
    check = [sys.executable, str(ROOT / "docs" / "check_links.py")]
    result = subprocess.run(check, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A page\n[a](#a-page) [b](gone.md) [c](#gone) [d](https://example.org)\n")
    found = runpy.run_path(str(ROOT / "docs" / "check_links.py"))["faults"](tmp_path)
    assert found == ["README.md: gone.md leads nowhere", "README.md: #gone leads nowhere"]
