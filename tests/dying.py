"""For child processes: die without a moment to clean up, as in a power cut."""

import os
import signal
import sys
from pathlib import Path


def die_at_rename(count: int) -> None:
    """Kill this process at its ``count``-th rename from now on, before that rename is done."""
    renames = 0

    def hook(event: str, arguments: object) -> None:
        nonlocal renames
        renames += event == "os.rename"
        if event == "os.rename" and renames == count:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "open")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def die_at_change(count: int, roots: tuple[str, ...], report: str | None = None) -> None:
    """Kill this process before its ``count``-th change of the file system from now on.

    Args:
        count: which change; with 0 it lives, and the number of changes is written to ``report`` as they come.
        roots: only what lies below one of these folders counts.
        report: a file for that number, outside the roots.
    """
    changes = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        if event not in CHANGES or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not int(str(arguments[2] or 0)) & _WRITING:
            return
        if not str(Path(os.fsdecode(arguments[0])).absolute()).startswith(roots):
            return
        changes += 1
        if count and changes == count:
            os.kill(os.getpid(), signal.SIGKILL)
        if report is not None:
            descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(descriptor, str(changes).encode())
            os.close(descriptor)

    sys.addaudithook(hook)
