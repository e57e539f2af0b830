"""``icmlora registry``: what it prints, in words and as JSON, with which exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from icmlora_cli.cli.app import app
from icmlora_cli.disk import files, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.adapters import AdapterStore
from tests.small_registry import BASE, SmallRegistry, cut, flip, safetensors, tree

if TYPE_CHECKING:
    from tests.cli.conftest import Registry


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["registry", *map(str, arguments)])
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    assert result.exit_code == code, result.output
    return result


def as_json(*arguments: object, code: int = 0) -> dict[str, Any]:
    value = json.loads(call(*arguments, "--json", code=code).stdout)
    assert isinstance(value, dict)
    return value


def test_verify(small: SmallRegistry) -> None:
    assert call("verify").stdout == ""
    small.fill()
    result = call("verify")
    assert result.stdout == "" and "2 tasks, 2 adapters, 1 generator, 1 base: 0 lost, 0 to know" in result.stderr
    flip(small.home.generators / "default" / "generator.safetensors")
    (small.home.root / "notes.txt").write_text("mine")
    said = call("verify", code=1).stdout
    assert "LOST: changed: generator default" in said and "note: unlisted: file notes.txt" in said
    assert (
        "costs: gen and eval refuse it" in said and "mends: icmlora registry verify --repair && icmlora train" in said
    )
    quiet = call("verify", "--quiet", code=1)
    assert quiet.stderr == "" and len(quiet.stdout.splitlines()) == 2
    value = as_json("verify", code=1)
    assert value["schema"] == "icmlora.registry.verify/1" and not value["ok"] and value["remaining"] == 1
    assert set(value) == {"schema", "ok", "home", "checked", "faults", "repairs", "remaining", "seconds"}
    assert value["faults"][0]["severe"] and value["faults"][0]["action"] == "quarantine"
    assert as_json("verify", "--quick")["ok"]
    repaired = as_json("verify", "--repair", code=1)
    assert [item["action"] for item in repaired["repairs"]] == ["quarantined"]
    said = call("verify", code=1).stdout
    assert "LOST: missing: generator default: it was moved into quarantine (changed: " in said
    assert "mends: icmlora train" in said
    small.generator("default")
    assert as_json("verify")["ok"]


def test_verify_does_not_write_into_what_it_looks_at(small: SmallRegistry) -> None:
    small.fill()
    before = {path: path.stat().st_mtime_ns for path in small.home.root.rglob("*")}
    call("verify")
    assert {path: path.stat().st_mtime_ns for path in small.home.root.rglob("*")} == before


def test_gc(small: SmallRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing to free" in call("gc").stdout
    small.fill()
    monkeypatch.setattr(temporary, "UNSIGNED_SECONDS", -1.0)
    left = small.home.tasks / f".tmp-{'0' * 32}-say_cow"
    left.mkdir()
    (left / "half").write_bytes(b"x" * 1000)
    state = small.home.generators / "default.training.safetensors"
    files.write_bytes(state, safetensors(9, metadata={"step": "7", "identity": "k" * 16}))
    vector = small.home.vectors / "ab" / "abc.safetensors"
    files.write_bytes(vector, safetensors(100))
    going = small.home.generators / "new.training.safetensors"
    files.write_bytes(going, safetensors(9, metadata={"step": "7", "identity": "other"}))
    before = tree(small.home.root)
    dry = call("gc", "--dry-run")
    assert "would be freed" in dry.stdout and "new.training.safetensors" in dry.stderr
    planned = as_json("gc", "--dry-run")
    assert planned["dry_run"] and {item["what"] for item in planned["items"]} == {"temporary", "states", "vectors"}
    assert [item["path"] for item in planned["kept"]] == [str(going)]
    refused = as_json("gc", code=2)
    assert refused["error"]["hint"] == "icmlora registry gc --yes"
    assert call("gc", code=2).stderr.count("nobody can be asked") == 1
    assert tree(small.home.root) == before and vector.exists()
    done = as_json("gc", "--only", "temporary", "--only", "states", "--yes")
    assert set(done) == {"schema", "dry_run", "items", "kept", "bytes"} and done["bytes"] > 1000
    assert not left.exists() and not state.exists() and vector.exists() and going.exists()
    assert "MB freed" in call("gc", "--yes").stdout and not vector.exists() and going.exists()
    assert "--only with: temporary" in call("gc", "--only", "tasks", code=2).stderr


def test_gc_asks(small: SmallRegistry) -> None:
    """On a terminal; anything but yes frees nothing."""
    pty = pytest.importorskip("pty")
    import os

    vector = small.home.vectors / "ab" / "abc.safetensors"
    files.write_bytes(vector, safetensors(100))
    for answer in ("n", "y"):
        main, end = pty.openpty()
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "icmlora_cli", "registry", "gc"]
        process = subprocess.Popen(command, env=environment, stdin=end, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(main, f"{answer}\n".encode())
        _, stderr = process.communicate(timeout=120)
        os.close(main)
        os.close(end)
        assert b"Free " in stderr and process.returncode == (0 if answer == "y" else 1)
        assert vector.exists() == (answer == "n")


def test_export_and_import(small: SmallRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.fill()
    archive = tmp_path / "all.tar.zst"
    value = as_json("export", "-o", archive)
    assert set(value) == {"schema", "file", "bytes", "things", "seconds"} and len(value["things"]) == 5
    assert value["bytes"] == archive.stat().st_size
    assert "--force" in call("export", "-o", archive, code=1).stderr
    said = call("export", "-o", archive, "--force", "--tasks", "*", "-a", "say_cat", "-g", "default")
    assert "2 tasks, 1 adapter, 1 generator" in said.stdout and "icmlora registry import all.tar.zst" in said.stderr
    for name in ("HOME", "CACHE"):
        monkeypatch.setenv(f"ICMLORA_{name}", str(tmp_path / "other" / name))
    assert "nothing was imported" in call("import", archive, "--dry-run").stderr
    value = as_json("import", archive)
    assert set(value) == {"schema", "file", "dry_run", "things", "bases", "seconds"}
    assert {item["state"] for item in value["things"]} == {"added"} and value["bases"] == {BASE: False}
    assert tree(tmp_path / "other" / "HOME" / "tasks") == tree(small.home.tasks)
    assert f"icmlora base pull {BASE}" in call("import", archive).stderr
    cut(archive)
    error = as_json("import", archive, code=1)["error"]
    assert error["kind"] == "CorruptFileError" and "icmlora registry export" in error["hint"]
    assert "Usage" in call("import", code=2).stderr
    assert call("import", tmp_path / "none", code=1).stderr.startswith("error: there is no file none")


def test_an_interrupted_registry_says_what_to_type(small: SmallRegistry) -> None:
    """A task that stands aside is missing; the error for it names the repair."""
    for folder in (small.task("say_cat").folder, small.generator("default")):
        folder.rename(temporary.beside(folder, "old"))
    for command in (["task", "show", "say_cat"], ["gen", "Say cat.", "-o", "out", "--generator", "default"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1 and "icmlora registry verify --repair" in result.stderr


def test_a_damaged_adapter_is_harvested_again(trained: "Registry") -> None:
    """With its own recipe, on its own base: the weights are those that it had, bit for bit."""
    home = Home.from_environment()
    records = AdapterStore(home).all()
    weights = records[0].last / "adapter_model.safetensors"
    before = weights.read_bytes()
    flip(weights)
    other = records[1].folder / "manifest.json"
    cut(other, 20)  # without it, the recipe is not known, and is none that is shipped
    value = trained.json("registry", "verify", "--repair", code=1)
    done = {(item["name"], item["action"]) for item in value["repairs"]}
    assert ("always_cat", "harvested") in done and ("always_dog", "harvested") not in done
    assert weights.read_bytes() == before and value["remaining"] == 1
    trained.call("harvest", "--base", trained.base, "--recipe", "harvest.yaml")
    assert trained.json("registry", "verify")["faults"] == []


def test_what_harvest_and_train_write_is_whole_and_travels(
    trained: "Registry", monkeypatch: pytest.MonkeyPatch
) -> None:
    value = trained.json("registry", "verify")
    assert value["ok"] and value["faults"] == [], value["faults"]
    assert value["checked"]["adapter"] == 2 and value["checked"]["vector"] > 0
    trained.call("registry", "export", "-o", "all.tar.zst")
    before = tree(trained.home / "adapters") | tree(trained.home / "generators") | tree(trained.home / "tasks")
    monkeypatch.setenv("ICMLORA_HOME", str(trained.root / "second"))
    moved = trained.json("registry", "import", "all.tar.zst")
    assert all(moved["bases"].values()) and len(moved["things"]) == 5
    second = trained.root / "second"
    assert tree(second / "adapters") | tree(second / "generators") | tree(second / "tasks") == before
    trained.call("gen", "Say cat.", "-o", "out")
    assert trained.json("harvest", "--base", trained.base, "--recipe", "harvest.yaml")["trained"] == []
