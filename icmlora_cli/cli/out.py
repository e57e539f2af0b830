"""The one place that prints results, warnings and errors of commands, for people, for ``--json`` and for ``--quiet``.

Data go to stdout, progress and warnings to stderr. Control characters in names and texts, which others may have
written, are printed in visible form.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import typer

from icmlora_cli.cli.interrupt import EXIT_CODE, interrupted
from icmlora_cli.report.shown import visible, visible_json

if TYPE_CHECKING:
    from icmlora_cli.errors import IcmloraError
    from icmlora_cli.workflows.progress import OnProgress

BAR_WIDTH = 12  # characters
SCHEMA_VERSIONS = {"demo": 2, "eval": 2, "report build": 2}  # the JSON of all other commands has version 1
LARGE_TABLE = 500  # rows; fitting the columns of more rows to the terminal would take seconds


class Out:
    """Prints the results and remarks of one command.

    Args:
        command: The command's name, from which the schema of its JSON is made: ``icmlora.<command>/<version>``.
        as_json: Whether to print one JSON object on stdout, and nothing else there.
        quiet: Whether to print the bare result alone, without progress and hints.
    """

    def __init__(self, command: str, *, as_json: bool, quiet: bool) -> None:
        """Keep the command's name and the form of its output."""
        self.command = command
        self.as_json = as_json
        self.quiet = quiet

    def result(self, data: Mapping[str, object]) -> None:
        """Print the command's result as a JSON object with its schema; without ``--json``, print nothing."""
        if self.as_json:
            schema = f"icmlora.{self.command.replace(' ', '.')}/{SCHEMA_VERSIONS.get(self.command, 1)}"
            print(_json({"schema": schema} | dict(data)))

    def line(self, text: str = "") -> None:
        """Print a line of data on stdout; with ``--json``, print nothing."""
        if not self.as_json:
            print(visible(text))

    def flush(self) -> None:
        """Flush stdout, for a command that goes on running after its result."""
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print a remark or warning on stderr; with ``--quiet``, print nothing."""
        if not self.quiet:
            print(visible(text), file=sys.stderr)

    def forbidden(self, licences: Sequence[str]) -> None:
        """Print a warning if licences of training data forbid derivatives.

        Args:
            licences: The licences that do.
        """
        if licences:
            self.note(
                f"warning: data that the generator learned from forbid derivatives: {', '.join(licences)}; "
                "whether what is made of it may be passed on is for their holders to say"
            )

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        title: str | None = None,
        bars: Sequence[float] | None = None,
    ) -> None:
        """Print a table; with ``--quiet``, only its cells, separated by tabs; with ``--json``, nothing.

        A table of more than ``LARGE_TABLE`` rows has plain columns, as wide as their cells, and no bars.

        Args:
            headers: The headers of the columns.
            rows: The rows, each with one cell for each header.
            title: The text above the table; None for none.
            bars: A share from 0 to 1 for each row, which a terminal shows as a bar in a last column; None for none.
        """
        if self.as_json:
            return
        rows = [[visible(cell) for cell in row] for row in rows]
        if self.quiet:
            for row in rows:
                print("\t".join(cell.replace("\n", "\\n").replace("\t", "\\t") for cell in row))
            return
        if len(rows) > LARGE_TABLE:
            _print_columns(headers, rows, title)
            return
        from rich import box
        from rich.console import Console
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=None if title is None else Text(title, style="table.title"), box=box.SIMPLE_HEAD, title_justify="left"
        )
        for index, header in enumerate(headers):
            numeric = bool(rows) and all(_is_figure(row[index]) for row in rows)
            table.add_column(header, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
        console = Console()
        drawn = bars if console.is_terminal else None
        if drawn is not None:
            table.add_column()
        for index, row in enumerate(rows):
            bar = [] if drawn is None else [ProgressBar(total=1.0, completed=drawn[index], width=BAR_WIDTH)]
            table.add_row(*(Text(cell) for cell in row), *bar)
        if not console.is_terminal:
            console = Console(width=160)
        console.print(table)

    def confirm(self, question: str, *, yes: bool, again: str) -> None:
        """Ask on the terminal before something is done that cannot be undone; return if the answer is yes.

        Args:
            question: The question, which says what would be done.
            yes: Whether ``--yes`` was given, so that nothing is asked.
            again: The command that does not ask, which the error names where nobody can be asked.

        Raises:
            UsageError: If nobody can be asked, with ``--json`` or where stdin is no terminal.
            typer.Abort: If the answer is anything but yes.
        """
        if yes:
            return
        if self.as_json or sys.stdin is None or not sys.stdin.isatty():
            from icmlora_cli.errors import UsageError

            raise UsageError("nothing was done: this asks first, and nobody can be asked here", hint=again)
        print(f"{visible(question)} [y/N]: ", end="", file=sys.stderr, flush=True)  # typer.confirm prints to stdout too
        if sys.stdin.readline().strip().casefold() not in {"y", "yes"}:
            raise typer.Abort

    @contextmanager
    def progress(self) -> Iterator["OnProgress"]:
        """Yield a callback that shows progress on stderr, as bars on a terminal and as lines elsewhere."""
        from icmlora_cli.cli.progress import progress_display

        with progress_display(quiet=self.quiet or self.as_json) as callback:
            yield callback


def _print_columns(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> None:
    """Print a table as padded columns, with figures aligned to the right."""
    from rich.cells import cell_len

    columns = [[header, *column] for header, column in zip(headers, zip(*rows, strict=True), strict=True)]
    for column in columns:
        lengths = [cell_len(cell) for cell in column]
        width = max(lengths)
        right = all(map(_is_figure, column[1:]))
        for index, (cell, length) in enumerate(zip(column, lengths, strict=True)):
            pad = " " * (width - length)
            column[index] = pad + cell if right else cell + pad
        column.insert(1, "─" * width)
    lines = ["  " + "  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    print("\n".join(([visible(title)] if title else []) + lines))


def _json(value: Mapping[str, object]) -> str:
    unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "utf-8").casefold()
    return visible_json(json.dumps(value, indent=2, ensure_ascii=not unicode))


def _is_figure(cell: str) -> bool:
    return cell in {"", "-"} or cell.lstrip("+-").replace(",", "")[:1].isdigit()


def _print_error(out: Out, error: "IcmloraError") -> None:
    if out.as_json:
        with suppress(OSError):  # stdout may be a file on a disk that is full
            print(_json({"schema": "icmlora.error/2", "error": error.as_dict()}), flush=True)
    lines = [f"error: {error.message}"]
    lines += [f"  {fault}" for fault in getattr(error, "faults", ())]
    lines += [f"  where: {error.where}"] if error.where else []
    lines += [f"  next: {error.hint}"] if error.hint else []
    print(visible("\n".join(lines)), file=sys.stderr)


def _discard_stdout_if_broken() -> None:
    """Redirect stdout to the null device if it takes nothing more, so that Python's flush at exit does not fail."""
    try:
        sys.stdout.flush()
    except OSError:
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, sys.stdout.fileno())
        os.close(null_device)


def _user_error(error: BaseException) -> "IcmloraError | None":
    """Return an error in the form that users see; None if only a fault in icmlora can have caused it."""
    from icmlora_cli.errors import IcmloraError

    if isinstance(error, IcmloraError):
        return error
    if isinstance(error, OSError):
        return IcmloraError(f"{error.strerror or error}", where=str(error.filename or "") or None)
    return None


@contextmanager
def session(command: str, *, as_json: bool, quiet: bool) -> Iterator[Out]:
    """Run a command's body, and turn its errors into one clear message and an exit code.

    Args:
        command: The command's name, without ``icmlora``.
        as_json: Whether ``--json`` was given.
        quiet: Whether ``--quiet`` was given.

    Raises:
        typer.Exit: If the body fails (code 1), its usage or a recipe is wrong (2), the gate refuses the adapter (3), or
            Ctrl-C interrupts it (130, for which ``__main__`` prints the message).
    """
    out = Out(command, as_json=as_json, quiet=quiet)
    try:
        yield out
        sys.stdout.flush()  # while the error of a full disk or a closed pipe can still be reported
    except (Exception, KeyboardInterrupt) as error:
        if interrupted(error):
            raise typer.Exit(EXIT_CODE) from error
        wrapped = _user_error(error)
        if wrapped is None:
            raise
        if not isinstance(error, BrokenPipeError):
            _print_error(out, wrapped)
        _discard_stdout_if_broken()
        raise typer.Exit(wrapped.exit_code) from error
