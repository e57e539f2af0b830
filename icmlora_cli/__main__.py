"""Entry point of the ``icmlora`` command and of ``python -m icmlora_cli``."""

from icmlora_cli.cli import interrupt


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line on stderr and exit code 130."""
    interrupt.watch()
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
