"""The one place that prints: data on stdout, progress and warnings on stderr; human, ``--json`` and ``--quiet``.

Names and texts that others wrote reach the terminal with their control characters written out.
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
SCHEMA_VERSIONS = {"demo": 2, "eval": 2, "report build": 2}  # the others are of version 1
LARGE_TABLE = 500  # rows; beyond, cells are padded and not fitted to the terminal, which would take seconds


class Out:
    """Where a command puts its result.

    Args:
        command: the command's name, which becomes the schema of its JSON: ``icmlora.<command>/<version>``.
        as_json: print one JSON object and nothing else on stdout.
        quiet: print the bare essentials: no progress, no hints.
    """

    def __init__(self, command: str, *, as_json: bool, quiet: bool) -> None:
        """Keep the command's name and the form of its output."""
        self.command = command
        self.as_json = as_json
        self.quiet = quiet

    def result(self, data: Mapping[str, object]) -> None:
        """Print ``data`` as the versioned JSON object; does nothing in the other modes."""
        if self.as_json:
            schema = f"icmlora.{self.command.replace(' ', '.')}/{SCHEMA_VERSIONS.get(self.command, 1)}"
            print(_json({"schema": schema} | dict(data)))

    def line(self, text: str = "") -> None:
        """Print a line of data for a person; nothing with ``--json``."""
        if not self.as_json:
            print(visible(text))

    def flush(self) -> None:
        """Hand on what was printed, where the command goes on after its result."""
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print a remark or warning on stderr; nothing with ``--quiet``."""
        if not self.quiet:
            print(visible(text), file=sys.stderr)

    def forbidden(self, licences: Sequence[str]) -> None:
        """Warn of licences of training data that forbid derivatives."""
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
        """Print a table for a person (tab-separated with ``--quiet``); nothing with ``--json``.

        Beyond ``LARGE_TABLE`` rows it is plain columns, without bars and as wide as their cells.

        Args:
            headers: of the columns.
            rows: cells, one for each header.
            title: above the table.
            bars: a row's share, 0 to 1, each; on a terminal, the last column shows them as bars.
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
            question: what to ask, which says what would be done.
            yes: do not ask, because ``--yes`` is given.
            again: the command that goes on without asking, which is told where nobody can be asked.

        Raises:
            UsageError: if nobody can be asked: with ``--json``, or where stdin is no terminal.
            typer.Abort: if the answer is anything but yes.
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
        """Yield a callback that shows progress on stderr: bars on a terminal, a line per item elsewhere."""
        from icmlora_cli.cli.progress import progress_display

        with progress_display(quiet=self.quiet or self.as_json) as callback:
            yield callback


def _print_columns(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> None:
    """Print a table as padded columns, figures to the right."""
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
        with suppress(OSError):  # stdout itself may be what is full
            print(_json({"schema": "icmlora.error/2", "error": error.as_dict()}), flush=True)
    lines = [f"error: {error.message}"]
    lines += [f"  {fault}" for fault in getattr(error, "faults", ())]
    lines += [f"  where: {error.where}"] if error.where else []
    lines += [f"  next: {error.hint}"] if error.hint else []
    print(visible("\n".join(lines)), file=sys.stderr)


def _let_go_of_stdout() -> None:
    """Point stdout nowhere if it takes nothing more, so that Python's own flush at exit does not fail."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _told(error: BaseException) -> "IcmloraError | None":
    """Return what an error is for a user; None where it can only be a fault of icmlora's."""
    from icmlora_cli.errors import IcmloraError

    if isinstance(error, IcmloraError):
        return error
    if isinstance(error, OSError):
        return IcmloraError(f"{error.strerror or error}", where=str(error.filename or "") or None)
    return None


@contextmanager
def session(command: str, *, as_json: bool, quiet: bool) -> Iterator[Out]:
    """Run a command's body and turn its errors into one clear message and an exit code.

    Raises:
        typer.Exit: with 1 (failed), 2 (usage or recipe), 3 (a gate) or 130 (interrupted; ``__main__`` says so).
    """
    out = Out(command, as_json=as_json, quiet=quiet)
    try:
        yield out
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
    except (Exception, KeyboardInterrupt) as error:
        if interrupted(error):
            raise typer.Exit(EXIT_CODE) from error
        wrapped = _told(error)
        if wrapped is None:
            raise
        if not isinstance(error, BrokenPipeError):
            _print_error(out, wrapped)
        _let_go_of_stdout()
        raise typer.Exit(wrapped.exit_code) from error
