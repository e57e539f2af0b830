"""Files that a command is told to write."""

from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import AlreadyExistsError, UsageError


def check_file(output: Path, force: bool) -> None:
    """Check that a file may be written, and delete what killed processes left of earlier attempts.

    Raises:
        AlreadyExistsError: if it is there and ``force`` is not set, or it is a folder.
        UsageError: if it is a device, a pipe or the like, which nothing replaces.
    """
    where = str(output.absolute())
    if output.is_dir():
        raise AlreadyExistsError(f"{output} is a folder", where=where, hint="name a file to write")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is no regular file", where=where, hint="name another file")
    if output.exists() and not force:
        raise AlreadyExistsError(
            f"{output} is there already", where=where, hint="--force replaces it, or name another file"
        )
    files.sweep(output.absolute(), alone=False)
