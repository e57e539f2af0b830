"""``icmlora plan``: a table, JSON, and errors with exit code 2."""

import json

from typer.testing import CliRunner

from icmlora_cli.cli.app import app
from icmlora_cli.registry.bases import Base

ARGUMENTS = ["plan", "harvest/frame", "--tokens", "32", "--device-memory", "1GB", "--base"]


def test_the_plan_of_a_base(llama_base: Base) -> None:
    shown = CliRunner().invoke(app, [*ARGUMENTS, llama_base.name])
    assert shown.exit_code == 0 and "fits" in shown.stdout and "30% of 989 TFLOP/s" in shown.stdout
    result = CliRunner().invoke(app, [*ARGUMENTS, llama_base.name, "--json"])
    data = json.loads(result.stdout)
    assert data["schema"] == "icmlora.plan/1" and data["fits"] is True
    assert [phase["name"] for phase in data["phases"]] == ["harvest", "train", "gen"]
    for phase in data["phases"]:
        parts = ("weights", "cores", "optimiser", "activations")
        assert phase["bytes"] == sum(phase[part] for part in parts)
    assert data["options"]["device_memory"] == 10**9 and data["harvest"] == "harvest/frame"


def test_what_does_not_fit_is_said(llama_base: Base) -> None:
    small = [*ARGUMENTS[:-2], "100kB", "--base", llama_base.name]
    result = CliRunner().invoke(app, small)
    assert result.exit_code == 0 and "NO" in result.stdout
    assert "harvest does not fit; rows at once that would: 0" in result.stderr


def test_a_size_that_is_none_is_a_usage_error(llama_base: Base) -> None:
    result = CliRunner().invoke(app, [*ARGUMENTS[:-2], "much", "--base", llama_base.name, "--json"])
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "UsageError" and "80GB" in error["hint"]
