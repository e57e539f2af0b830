"""``icmlora doctor``: exit codes and JSON keys."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from icmlora_cli.cli.doctor import doctor
from icmlora_cli.registry.bases import Base

app = typer.Typer(rich_markup_mode=None)
app.command()(doctor)
runner = CliRunner()


def test_warnings_alone_exit_with_0() -> None:
    result = runner.invoke(app, [])
    assert result.exit_code == 0, result.output
    assert "default base: icmlora base pull smollm2-135m" in result.stderr
    assert "torch" in result.stdout and "cpu" in result.stdout


def test_json_keys(llama_base: Base) -> None:
    value = json.loads(runner.invoke(app, ["--json"]).stdout)
    assert value.keys() == {"schema", "ok", "devices", "versions", "folders", "bases", "checks"}
    assert value["schema"] == "icmlora.doctor/1"
    assert value["devices"][0].keys() == {"name", "description", "memory", "bf16"}
    assert value["folders"][0].keys() == {"label", "path", "exists", "writable", "free"}
    assert value["checks"][0].keys() == {"name", "ok", "detail", "mend", "required"}
    assert [base["name"] for base in value["bases"]] == [llama_base.name]


def test_a_folder_that_cannot_be_written_exits_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ICMLORA_HOME", str(tmp_path / "file" / "home"))
    result = runner.invoke(app, [])
    assert result.exit_code == 1
    assert "FAILED" in result.stdout and "export ICMLORA_HOME=" in result.stderr
    assert json.loads(runner.invoke(app, ["--json"]).stdout)["ok"] is False


def test_quiet_prints_checks_only() -> None:
    result = runner.invoke(app, ["-q"])
    assert result.stderr == ""
    assert all(line.count("\t") == 2 for line in result.stdout.splitlines())
