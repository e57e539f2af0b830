"""Leases between real processes."""

import os
import subprocess
import sys
from pathlib import Path

import icmlora_cli
from icmlora_cli.disk.leases import DURATION, MARKER, Lease, worker

HOLD = """
import sys
from pathlib import Path
from icmlora_cli.disk.leases import Lease
with Lease(Path(sys.argv[1])).tried() as mine:
    print("mine" if mine else "taken", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    """Start a process that holds the lease of a folder until its stdin ends."""
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "mine\n"
    return process


def test_one_holds_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "task" / "key"
    with Lease(folder).tried() as mine, Lease(folder).tried() as also:
        assert mine and not also
        found = worker(folder)
        assert found is not None and found.pid == os.getpid() and found.age < DURATION
    assert worker(folder) is None and not list(folder.iterdir())


def test_what_a_killed_process_held_can_be_had(tmp_path: Path) -> None:
    process = hold(tmp_path)
    lease = Lease(tmp_path)
    with lease.tried() as mine:
        assert not mine
    process.kill()
    process.communicate()
    tries = 0
    for _ in range(3):  # the first finds the dead holder, the next takes over
        tries += 1
        with lease.tried() as mine:
            if mine:
                break
    assert mine and tries <= 3


def test_a_holder_is_told_that_it_has_lost_it(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    with lease.tried() as mine:
        assert mine and not lease.lost
        (tmp_path / MARKER).unlink()
        assert lease.lost
        process = hold(tmp_path)
        assert lease.lost
    found = worker(tmp_path)
    assert found is not None and found.pid == process.pid  # ending the lost one took nothing away from the other
    process.communicate("")


def test_a_worker_that_says_nothing_any_more_is_not_shown(tmp_path: Path) -> None:
    process = hold(tmp_path)
    old = (tmp_path / MARKER).stat().st_mtime - 2 * DURATION
    os.utime(tmp_path / MARKER, (old, old))
    assert worker(tmp_path) is None
    process.communicate("")
