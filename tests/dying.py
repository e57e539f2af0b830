"""For child processes: die without a moment to clean up, as in a power cut."""

import os
import signal
import sys


def die_at_rename(count: int) -> None:
    """Kill this process at its ``count``-th rename from now on, before that rename is done."""
    renames = 0

    def hook(event: str, arguments: object) -> None:
        nonlocal renames
        renames += event == "os.rename"
        if event == "os.rename" and renames == count:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
