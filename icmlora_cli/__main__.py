"""Entry point of the ``icmlora`` command and of ``python -m icmlora_cli``."""


def main() -> None:
    """Run the command line."""
    from icmlora_cli.cli.app import app

    app()


if __name__ == "__main__":
    main()
