"""Temporary names say whose they are; what a process left that was killed is told from what one is writing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import icmlora_cli
from icmlora_cli.disk import files, temporary

KILLED = """
import sys
from pathlib import Path
from icmlora_cli.disk import files
from tests.dying import die_at_rename

die_at_rename(int(sys.argv[2]))
with files.new_folder(Path(sys.argv[1])) as folder:
    (folder / "weights").write_text("new")
"""

# Ends by the signal that comes of writing past a limit, in the middle of what safetensors writes.
CUT_SHORT = """
import resource, signal, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from icmlora_cli.disk import files

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
files.write_with(Path(sys.argv[1]), lambda path: save_file({"a": numpy.zeros(4096)}, path))
"""


def killed_at(rename: int, target: Path) -> None:
    """Replace a folder in a process that is killed before its n-th rename."""
    assert ended(KILLED, str(target), str(rename)) == -signal.SIGKILL


def ended(program: str, *arguments: str) -> int:
    """Run a program and return its exit code."""
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", program, *arguments], env=environment, check=False).returncode


@pytest.mark.parametrize("role", ["new", "old", "gone"])
@pytest.mark.parametrize("name", ["model", "old-model", "new-", "a-b.c", ".tmp-x"])
def test_a_name_says_what_it_is(tmp_path: Path, role: temporary.Role, name: str) -> None:
    path = temporary.beside(tmp_path / name, role)
    said = temporary.parse(path.name)
    assert said is not None and path.parent == tmp_path
    assert (said.role, said.name, said.pid) == (role, name, os.getpid())
    assert temporary.parse(name) is None or name.startswith(temporary.PREFIX)


def test_names_of_the_first_version_are_read_too() -> None:
    token = "0123456789abcdef" * 2
    assert temporary.parse(f".tmp-{token}-model") == temporary.Temporary("new", "model")
    assert temporary.parse(f".tmp-{token}-old-model") == temporary.Temporary("old", "model")


def test_what_this_process_writes_is_in_use(tmp_path: Path) -> None:
    with files.new_folder(tmp_path / "model") as folder:
        assert temporary.in_use(folder)


def test_what_a_killed_process_left_is_not_in_use(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    killed_at(2, tmp_path / "model")
    left = {temporary.parse(path.name): path for path in tmp_path.iterdir()}
    assert sorted(said.role for said in left if said is not None) == ["new", "old"]
    assert all(said is not None and said.name == "model" for said in left)
    assert not any(temporary.in_use(path) for path in left.values())


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limits on files")
def test_what_a_library_left_of_a_killed_process_is_told_too(tmp_path: Path) -> None:
    """Safetensors writes under a name of its own, which says nothing."""
    (tmp_path / "a.safetensors").write_bytes(b"old")
    assert ended(CUT_SHORT, str(tmp_path / "a.safetensors")) == -signal.SIGXFSZ
    (left,) = (path for path in tmp_path.iterdir() if path.name != "a.safetensors")
    said = temporary.parse(left.name)
    assert said is not None and (said.role, said.name) == ("new", "a.safetensors")
    assert any(left.iterdir()) and not temporary.in_use(left)
    assert (tmp_path / "a.safetensors").read_bytes() == b"old"


def test_a_later_process_with_the_same_number_is_another(tmp_path: Path) -> None:
    """Process 1 runs for as long as the machine; a file that is older cannot be one that it writes."""
    mine = temporary.beside(tmp_path / "a")
    path = mine.with_name(mine.name.replace(f".{os.getpid()}.", ".1."))
    path.touch()
    assert temporary.in_use(path)
    assert not temporary._runs(1, since=0.0)


def test_of_another_machine_and_of_unsigned_names_the_time_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = temporary.beside(tmp_path / "a")
    foreign = mine.with_name(f".tmp-{'0' * 8}.1.{'a' * 12}-new-a")
    unsigned = mine.with_name(f".tmp-{'0' * 32}-a")
    for path in (foreign, unsigned):
        path.mkdir()
        (path / "inner").touch()
        assert temporary.in_use(path)
    now = time.time()
    monkeypatch.setattr(temporary.time, "time", lambda: now + temporary.UNSIGNED_SECONDS + 1)
    assert temporary.in_use(foreign) and not temporary.in_use(unsigned)
    monkeypatch.setattr(temporary.time, "time", lambda: now + temporary.FOREIGN_SECONDS + 1)
    assert not temporary.in_use(foreign)


def test_a_failed_replacement_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    with files.new_folder(target) as folder:
        (folder / "weights").write_text("old")
    monkeypatch.setattr(files, "sync_folder", lambda path: None)  # it would find out first
    with pytest.raises(FileNotFoundError), files.new_folder(target) as folder:
        folder.rmdir()  # so that the last rename has nothing to rename
    assert (target / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_next_writer_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    killed_at(1, tmp_path / "model")
    killed_at(2, tmp_path / "model")
    assert len(list(tmp_path.iterdir())) >= 2
    with files.new_folder(tmp_path / "other"), pytest.raises(RuntimeError), files.new_folder(tmp_path / "model"):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]
    assert (tmp_path / "model" / "weights").read_text() == "old"
    with files.new_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("newer")
    assert (tmp_path / "model" / "weights").read_text() == "newer"
