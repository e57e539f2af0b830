"""Entry point of the ``icmlora`` command and of ``python -m icmlora_cli``."""

import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line on stderr and exit code 130, even while it imports."""
    try:
        from icmlora_cli.cli.app import app

        app()
    except BaseException as error:
        from icmlora_cli.cli.interrupt import EXIT_CODE, MESSAGE, interrupted

        if not interrupted(error):
            raise
        print(MESSAGE, file=sys.stderr, flush=True)
        os._exit(EXIT_CODE)  # what was half imported cannot be trusted to finish without a traceback


if __name__ == "__main__":
    main()
