"""Full disks and closed pipes: a clear error, nothing half written, and the same command then does it."""

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Registry


def at_most(limit: int) -> Callable[[], None]:
    """Return what makes a new process unable to write a file of more than ``limit`` bytes."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return prepare


def fails(registry: "Registry", limit: int, *command: object) -> None:
    done = registry.process(*command, preexec_fn=at_most(limit))
    assert done.returncode == 1, done.stderr
    assert "error: cannot write" in done.stderr and "File too large" in done.stderr
    assert "next: free some space" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(registry.root.rglob(".tmp-*"))
    registry.call("task", "list")


def test_harvest(empty: "Registry") -> None:
    empty.call("task", "add", "tasks.yaml")
    empty.call("base", "pull", empty.base)
    command = ("harvest", "--base", empty.base, "--recipe", "harvest.yaml")
    fails(empty, 4000, *command)  # a training state or checkpoint takes more
    assert empty.json("adapter", "list")["adapters"] == []
    assert empty.json(*command)["trained"] == ["always_cat", "always_dog"]
    assert empty.json("adapter", "show", "always_cat")["adapters"][0]["checkpoints"]


def test_train(trained: "Registry") -> None:
    command = ("train", "--base", trained.base, "--recipe", "train.yaml", "--name", "second")
    weights = trained.home / "generators" / "default" / "generator.safetensors"
    fails(trained, 20_000, *command)  # the training state takes more
    fails(trained, weights.stat().st_size - 1, *command, "--steps", "5")  # no state is saved: the generator itself
    assert [item["name"] for item in trained.json("storage")["generators"]] == ["default"]
    assert trained.json(*command)["trained"] is True


def test_gen(trained: "Registry") -> None:
    fails(trained, 50_000, "gen", "Say cat.", "-o", "out", "--merge")
    assert not Path("out").exists()
    trained.call("gen", "Say cat.", "-o", "out")
    before = Path("out/adapter_model.safetensors").read_bytes()
    fails(trained, 5000, "gen", "Say dog.", "-o", "out", "--force")
    assert Path("out/adapter_model.safetensors").read_bytes() == before
    trained.call("gen", "Say cat.", "-o", "whole", "--merge")


def test_gguf(trained: "Registry") -> None:
    fails(trained, 50_000, "gen", "Say cat.", "-o", "out", "--merge", "--format", "gguf")
    assert not Path("out").exists()
    command = ("adapter", "export", "always_cat", "--format", "gguf", "-o", "cat.gguf")
    fails(trained, 5000, *command)
    assert not Path("cat.gguf").exists()
    trained.call(*command)


@pytest.fixture
def small_disk(empty: "Registry") -> Iterator[Path]:
    """``ICMLORA_HOME`` on a file system of 2 MB."""
    empty.home.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(empty.home)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield empty.home
    finally:
        subprocess.run(["umount", str(empty.home)], check=True)


def test_a_small_disk(empty: "Registry", small_disk: Path) -> None:
    empty.call("task", "add", "tasks.yaml")
    empty.call("base", "pull", empty.base)
    ballast = small_disk / ".ballast"
    ballast.write_bytes(
        bytes(shutil.disk_usage(small_disk).free - 20_000)
    )  # a lease has room, a training state has not
    command = ("harvest", "--base", empty.base, "--recipe", "harvest.yaml")
    done = empty.process(*command)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr and "next: free some space" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert empty.json("registry", "verify")["ok"] and empty.json("adapter", "list")["adapters"] == []
    ballast.unlink()
    assert empty.json(*command)["trained"] == ["always_cat", "always_dog"]
    assert empty.json("registry", "verify")["faults"] == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [("recipe", "list"), ("task", "builtins", "--json")])
def test_stdout_that_takes_nothing(empty: "Registry", command: tuple[str, ...], unbuffered: str) -> None:
    line = [sys.executable, "-m", "icmlora_cli", *command]
    environment = empty.environment | {"PYTHONUNBUFFERED": unbuffered}  # type: ignore[operator]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "error: No space left on device\n"
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(30) == 1
    process.stderr.close()
