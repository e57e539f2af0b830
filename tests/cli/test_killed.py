"""Commands that are killed while they write, and a cache that may not be written."""

import ctypes
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

# runs icmlora, killed at its third change of the file system below the temporary names of the folder that is named
KILLED = """
import sys
from icmlora_cli.cli.app import app
from tests.dying import die_at_change
die_at_change(3, (sys.argv[1] + "/.tmp-",))
app(sys.argv[2:])
"""
COMMANDS = {
    "gen": ("gen", "Say cat."),
    "finetune": ("finetune", "--from", "made", "--examples", "few.jsonl", "--steps", "2"),
    "merge": ("merge", "-a", "always_cat"),
    "adapter export": ("adapter", "export", "always_cat"),
}
DROP_FROM_BOUNDING_SET, OVERRIDE_PERMISSIONS = 24, 1  # PR_CAPBSET_DROP and CAP_DAC_OVERRIDE of Linux


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf")}


@pytest.mark.parametrize("again", ["with the same output", "with another output"])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_killed_command_left_beside_its_output_is_swept(trained: "Registry", name: str, again: str) -> None:
    out, other = trained.root / "out", trained.root / "other"
    if name == "finetune":
        trained.call("gen", "Say cat.", "-o", "made")
        Path("few.jsonl").write_text('{"input": "word 1", "output": "cat"}\n' * 4)
    command = [sys.executable, "-c", KILLED, str(trained.root), *COMMANDS[name], "-o", str(out)]
    killed = subprocess.run(command, env=trained.environment, cwd=trained.root, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(trained.root.glob(".tmp-*")) and not out.exists()
    foreign = trained.root / ".tmp-of-another-program"
    foreign.write_text("")
    written = out if again == "with the same output" else other
    trained.call(*COMMANDS[name], "-o", written)
    assert list(trained.root.glob(".tmp-*")) == [foreign]
    assert contents(written) and not (written is other and out.exists())


def refuse_root() -> None:
    """Hold a new process of root to the permissions of files, as one of anybody else is held to them."""
    ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, OVERRIDE_PERMISSIONS, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="root is held to permissions by Linux's prctl")
def test_gen_goes_on_where_the_cache_is_read_only(trained: "Registry") -> None:
    cache = trained.root / "icmlora-cache"
    shutil.rmtree(cache / "vectors")
    (cache / "vectors").mkdir()
    folders = [path for path in (cache, *cache.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        refused = subprocess.run(["touch", cache / "vectors" / "x"], preexec_fn=refuse_root, capture_output=True)
        assert refused.returncode == 1
        done = trained.process("gen", "Say cat.", "-o", "out", preexec_fn=refuse_root)
        assert done.returncode == 0, done.stderr
        assert not list((cache / "vectors").iterdir())
    finally:
        for folder in folders:
            folder.chmod(0o755)
    trained.call("gen", "Say cat.", "-o", "whole")
    assert contents(Path("out")) == contents(Path("whole")) and list((cache / "vectors").iterdir())


def test_a_damaged_cached_vector_is_told_once_and_not_used(trained: "Registry") -> None:
    shutil.rmtree(trained.root / "icmlora-cache" / "vectors")
    trained.call("gen", "Say cat.", "-o", "whole")
    (path,) = (trained.root / "icmlora-cache" / "vectors").rglob("*.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    told = trained.call("gen", "Say cat.", "-o", "out")
    assert told.stderr.count("cached task vectors are damaged, and are read from the base again") == 1
    assert contents(Path("out")) == contents(Path("whole")) and path.read_bytes() == data
    assert "damaged" not in trained.call("gen", "Say cat.", "-o", "out", "--force").stderr
