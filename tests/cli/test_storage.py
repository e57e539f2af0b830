"""``icmlora storage``: its table, its bars, its JSON, and what it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import icmlora_cli
from icmlora_cli.cli.app import app
from tests.small_registry import SmallRegistry, lora

KEYS = {"schema", "bases", "tasks", "adapters", "adapter_bytes", "formats", "generators", "bytes", "duplicates", "gc"}
EQUAL = lora((2, 16), "BF16")
IMPORTS = """
import sys
from icmlora_cli.cli.app import app
try:
    app(["storage"])
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def filled(small: SmallRegistry) -> SmallRegistry:
    """Two tasks whose last checkpoints are equal, and a generator."""
    small.fill()
    for seed, task in enumerate(("say_cat", "say_dog")):
        small.adapter(task, weights=(lora((4,), seed=seed), EQUAL))
    return small


def test_json(filled: SmallRegistry) -> None:
    value = json.loads(call("storage", "--json").stdout)
    assert set(value) == KEYS and value["schema"] == "icmlora.storage/1"
    assert set(value["adapters"][0]) == {"task", "base", "checkpoints", "bytes", "one", "rank", "dtype"}
    assert [(item["rank"], item["dtype"]) for item in value["adapters"]] == [("2-16", "bf16")] * 2
    (found,) = value["formats"]
    assert found == {"rank": "2-16", "dtype": "bf16", "tasks": 2, "checkpoints": 4, "bytes": value["adapter_bytes"]}
    assert value["duplicates"] == {"files": 1, "bytes": len(EQUAL), "linked_files": 0, "linked_bytes": 0}
    assert value["gc"] == {"bytes": len(EQUAL), "by_kind": {"duplicates": len(EQUAL)}}
    (generator,) = value["generators"]
    assert (
        value["bytes"]
        == sum(value["bases"].values()) + sum(value["tasks"].values()) + value["adapter_bytes"] + generator["bytes"]
    )
    (item,) = json.loads(call("registry", "gc", "--only", "duplicates", "--dry-run", "--json").stdout)["items"]
    assert item["bytes"] == len(EQUAL) and "say_cat" in item["same_as"] and "say_dog" in item["path"]


def test_the_table_says_where_the_bytes_are(filled: SmallRegistry) -> None:
    said = call("storage").stdout
    assert "(further copies: 1)" in said
    assert "2-16" in said and "bf16" in said and "%" in said and "by rank and dtype" in said
    assert "next: icmlora registry gc --only duplicates" in said and "gc would free" in said
    assert "smaller than one adapter a task from" in said and "━" not in said and "\x1b" not in said
    rows = [line.split("\t") for line in call("storage", "--quiet").stdout.splitlines()]
    assert ["adapter", "say_cat", "2 checkpoints", "2-16", "bf16"] in [row[:5] for row in rows]
    assert "hard links save" not in said
    call("registry", "gc", "--yes")
    said = call("storage").stdout
    assert "(links: 1)" in said and "gc would free nothing" in said and "more than once" not in said


def test_a_terminal_gets_bars(filled: SmallRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")  # without colours, only the part that is full is drawn
    rows = [line.split("%") for line in call("storage").stdout.splitlines() if "%" in line]
    lengths = {share.split()[-1]: bar.count("━") for share, bar in rows}
    assert lengths["100.0"] == 12 and all(abs(count - float(share) * 0.12) <= 1 for share, count in lengths.items())
    assert len(set(lengths.values())) > 1


def test_it_imports_nothing_heavy(filled: SmallRegistry) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", IMPORTS], env=environment, capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "peft", "numpy", "safetensors"}.isdisjoint(done.stderr.split())
