"""Files that a command is told to write."""

from pathlib import Path

from icmlora_cli.errors import AlreadyExists


def check_file(output: Path, force: bool) -> None:
    """Check that a file may be written.

    Raises:
        AlreadyExists: if it is there and ``force`` is not set, or it is a folder.
    """
    if output.is_dir() or (output.exists() and not force):
        hint = "name another file with -o" if output.is_dir() else "--force to replace it, or another file with -o"
        raise AlreadyExists(f"{output.name} is there already", where=str(output), hint=hint)
