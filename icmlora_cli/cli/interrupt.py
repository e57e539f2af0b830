"""Handles Ctrl-C at any moment: one line on stderr and exit code 130, never a traceback."""

import os
import signal
from types import FrameType

MESSAGE = "interrupted: what was finished is kept; run the same command again to go on\n"
EXIT_CODE = 130
IMPORTING = "<frozen importlib._bootstrap>"  # the file name of the code that runs every import
SHOW_CURSOR = "\x1b[?25h"  # an unfinished progress bar leaves the cursor hidden

_seen = False


def watch() -> None:
    """Handle Ctrl-C from now on, unless it is ignored, as under nohup."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)


def stop_watching() -> None:
    """Ignore Ctrl-C from now on, since the work is done and Python is about to exit."""
    if signal.getsignal(signal.SIGINT) is _on_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def interrupted(error: BaseException) -> bool:
    """Tell whether an error comes from Ctrl-C, which a library may have turned into an error of its own."""
    return _seen or isinstance(error, KeyboardInterrupt)


def leave() -> None:
    """Say that the command was interrupted, and end the process at once."""
    os.write(2, ((SHOW_CURSOR if os.isatty(2) else "") + MESSAGE).encode())
    os._exit(EXIT_CODE)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or leave at once if a module is being imported.

    NumPy, torch and transformers swallow an interrupt of their import or go on half imported. Leaving at that point
    loses nothing, since files get their names only once they are whole.

    Args:
        number: The number of the signal.
        frame: The innermost frame that was interrupted.
    """
    global _seen
    _seen = True
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            leave()
        frame = frame.f_back
    raise KeyboardInterrupt
