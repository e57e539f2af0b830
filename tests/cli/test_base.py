"""``icmlora base``: output modes, JSON keys, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icmlora_cli.cli.base import app
from icmlora_cli.registry.bases import Base

KEYS = {
    "name",
    "model_id",
    "revision",
    "path",
    "weight_hash",
    "origin",
    "licence",
    "bytes",
    "architecture",
    "whole",
}
runner = CliRunner()


def test_pull_a_folder(tiny_bases: dict[str, Path]) -> None:
    folder = str(tiny_bases["llama"])
    result = runner.invoke(app, ["pull", folder])
    assert result.exit_code == 0, result.output
    assert folder in result.stdout
    result = runner.invoke(app, ["pull", folder, "--json"])
    value = json.loads(result.stdout)
    assert value.pop("schema") == "icmlora.base.pull/1"
    assert value.keys() == KEYS
    assert runner.invoke(app, ["pull", folder, "--quiet"]).stdout == f"{folder}\n"


def test_pull_offline_says_what_to_type() -> None:
    result = runner.invoke(app, ["pull", "smollm2-135m", "--offline"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "next: icmlora base pull smollm2-135m" in result.stderr
    result = runner.invoke(app, ["pull", "smollm2-135m", "--offline", "--json"])
    assert json.loads(result.stdout)["error"]["kind"] == "BaseUnavailableError"


def test_list(llama_base: Base) -> None:
    result = runner.invoke(app, ["list", "--json"])
    value = json.loads(result.stdout)
    assert value["schema"] == "icmlora.base.list/1"
    (entry,) = value["bases"]
    assert entry.keys() == KEYS and entry["whole"] is True
    assert "LlamaForCausalLM" in runner.invoke(app, ["list"]).stdout
    assert runner.invoke(app, ["list", "-q"]).stdout.count("\t") == 4


def test_empty_list() -> None:
    assert "icmlora base pull smollm2-135m" in runner.invoke(app, ["list"]).stdout
    assert runner.invoke(app, ["list", "-q"]).stdout == ""
    assert json.loads(runner.invoke(app, ["list", "--json"]).stdout)["bases"] == []


def test_show(llama_base: Base) -> None:
    result = runner.invoke(app, ["show", llama_base.name, "--json", "--verify"])
    value = json.loads(result.stdout)
    assert value.keys() == KEYS | {"schema", "verified", "files"}
    assert value["verified"] is True and "model.safetensors" in value["files"]
    assert llama_base.weight_hash in runner.invoke(app, ["show", llama_base.name]).stdout


def test_show_verify_finds_damage(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(tiny_bases["llama"], tmp_path / "copy")
    assert runner.invoke(app, ["pull", str(folder)]).exit_code == 0
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    result = runner.invoke(app, ["show", str(folder), "--verify"])
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr and "next: icmlora base remove" in result.stderr


def test_remove(llama_base: Base) -> None:
    asked = runner.invoke(app, ["remove", llama_base.name])
    assert asked.exit_code == 2 and "--yes" in asked.stderr
    result = runner.invoke(app, ["remove", llama_base.name, "--yes", "--json"])
    value = json.loads(result.stdout)
    assert value.keys() == {"schema", "name", "freed_bytes", "kept"}
    assert value["kept"] == str(llama_base.path)
    assert (llama_base.path / "model.safetensors").is_file()
    assert runner.invoke(app, ["remove", llama_base.name, "--yes"]).exit_code == 1


@pytest.mark.parametrize("command", ["show", "remove"])
def test_unknown_base(command: str) -> None:
    result = runner.invoke(app, [command, "org/none"])
    assert result.exit_code == 1
    assert "icmlora base pull org/none" in result.stderr


@pytest.mark.parametrize("command", ["pull", "list", "show", "remove"])
def test_help_has_an_example(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert "Example: icmlora base" in result.stdout
    assert "--json" in result.stdout and "--quiet" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, icmlora_cli.cli.base, icmlora_cli.cli.doctor;"
        "print([m for m in ('torch', 'transformers', 'peft', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
