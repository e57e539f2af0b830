"""The entry point of the ``icmlora`` command and of ``python -m icmlora_cli``."""

import io
import os
import sys

from icmlora_cli.cli import interrupt


def _ready_streams() -> None:
    """Make stdout and stderr accept all text, even if the encoding lacks a character or the stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the shell closed it with >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - stays open until exit
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _wait_briefly() -> None:
    """Let OpenMP's threads spin only a moment while they wait for one another, unless the environment says otherwise.

    By default they spin for long, and where other work is on the same cores a training step takes many times as long;
    to let them sleep at once costs a fifth where the cores are idle (``benchmarks/busy_cores.py``). GNU's OpenMP, which
    torch has on Linux, reads this when torch is imported, so it has to be set before.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line on stderr and exit code 130."""
    interrupt.watch()
    _wait_briefly()
    _ready_streams()
    try:
        from icmlora_cli.cli.app import app

        app()
    except BaseException as error:
        if interrupt.interrupted(error):
            interrupt.leave()
        interrupt.stop_watching()
        raise


if __name__ == "__main__":
    main()
