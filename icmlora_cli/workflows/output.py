"""Checks the file or folder that a command is to write (``-o``) before any work is done."""

from collections.abc import Sequence
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import AlreadyExistsError, UsageError
from icmlora_cli.provenance.versions import ABOUT


def check_file(output: Path, force: bool) -> None:
    """Check that a file may be written, and delete what killed processes left beside it.

    Raises:
        AlreadyExistsError: If it exists and ``force`` is not set, or it is a folder.
        UsageError: If it is a device, a pipe or the like, which is never replaced.
    """
    if output.is_dir():
        raise AlreadyExistsError(f"{output} is a folder", where=_where(output), hint="name a file to write")
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is no regular file", where=_where(output), hint="name another file")
    if output.exists() and not force:
        raise _is_there(output)
    _sweep(output)


def check_folder(output: Path, force: bool) -> None:
    """Check that a folder may be written, and delete what killed processes left beside it.

    Raises:
        AlreadyExistsError: If it exists and ``force`` is not set, or icmlora did not write it.
    """
    _sweep(output)
    if is_free(output):
        return
    if not force:
        raise _is_there(output)
    if not (output.is_dir() and (output / ABOUT).is_file()):
        raise AlreadyExistsError(
            f"{output} is not something that icmlora wrote, so --force does not replace it",
            where=_where(output),
            hint="name another folder with -o",
        )


def check_apart(output: Path, inputs: Sequence[Path]) -> None:
    """Check that writing a folder does not replace one of the inputs of what is written.

    Raises:
        UsageError: If the folder is one of the inputs, or holds one.
    """
    for path in inputs:
        if path.resolve().is_relative_to(output.resolve()):
            raise UsageError(
                f"{output} {'is' if path.resolve() == output.resolve() else 'holds'} what it would be made of",
                where=str(path),
                hint="name another folder with -o",
            )


def _sweep(output: Path) -> None:
    files.sweep(output.absolute(), alone=False)
    files.sweep_folder(output.absolute().parent)


def is_free(folder: Path) -> bool:
    """Return whether a path does not exist or is an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _is_there(output: Path) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{output} exists", where=_where(output), hint="--force replaces it, or name another one to write"
    )


def _where(output: Path) -> str:
    return str(output.absolute())
