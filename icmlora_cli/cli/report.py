"""``icmlora report``: make an HTML page of an evaluation, and open it."""

from pathlib import Path
from typing import Annotated

import typer

from icmlora_cli.cli.options import Force, Json, Quiet
from icmlora_cli.cli.out import Out, session

app = typer.Typer(
    help="Reports, each one HTML page of an evaluation that needs no network: build, open.",
    epilog="Example: icmlora report open runs/first",
    no_args_is_help=True,
)

ResultPath = Annotated[
    Path, typer.Argument(metavar="RESULT", help="A result's folder, as icmlora eval writes it, or its result.json.")
]


@app.command(epilog="Example: icmlora report build runs/first")
def build(
    result: ResultPath,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.html", help="The page to write; report.html beside result.json by default."
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the page; an earlier report is replaced, any other file only with --force."""
    with session("report build", as_json=as_json, quiet=quiet) as out:
        from icmlora_cli.report.result import read_result
        from icmlora_cli.workflows.output import check_file

        evaluation = read_result(result)
        target = (_beside(result) if output is None else output).absolute()
        if not force:
            _check_is_report(target, hint="--force replaces it")
        check_file(target, force=True)
        from icmlora_cli.disk.files import write_text
        from icmlora_cli.report.html import html_report

        write_text(target, html_report(evaluation))
        size = target.stat().st_size
        tasks, methods = len(evaluation.tasks), len(evaluation.methods)
        out.result({"report": str(target), "bytes": size, "tasks": tasks, "methods": methods})
        out.line(str(target) if quiet else f"{target}: {tasks} tasks on {methods} methods, {size / 1e6:.1f} MB")


@app.command("open", epilog="Example: icmlora report open runs/first")
def open_report(
    result: ResultPath,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser, or only print its path.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Open the page in a browser.

    The page is made first if it is missing or older than result.json.
    """
    with session("report open", as_json=as_json, quiet=quiet) as out:
        page = _beside(result).absolute()
        _check_is_report(page, hint=f"icmlora report build {result} -o ANOTHER.html")
        built = _is_stale(page, result)
        if built:
            from icmlora_cli.report.html import write_report
            from icmlora_cli.report.result import read_result

            write_report(page.parent, read_result(result))
        opened = browser and _show(page, out)
        out.result({"report": str(page), "built": built, "opened": opened})
        out.line(str(page))


def _beside(result: Path) -> Path:
    """Return where the page of a result is, or would be."""
    from icmlora_cli.report.html import REPORT

    return (result if result.is_dir() else result.parent) / REPORT


def _check_is_report(page: Path, *, hint: str) -> None:
    """Check that the file at a page's path, if there is one, is a report that icmlora made.

    Args:
        page: The path of the page.
        hint: What to type if it is another file.

    Raises:
        AlreadyExistsError: If it is another file.
        UsageError: If it is a folder.
    """
    from icmlora_cli.errors import AlreadyExistsError, UsageError
    from icmlora_cli.report.html import is_report

    if page.is_dir():
        raise UsageError(f"{page.name} is a folder", where=str(page), hint="name a file, such as report.html")
    if page.exists() and not (page.is_file() and is_report(page)):
        raise AlreadyExistsError(f"{page.name} exists and is not a report of icmlora's", where=str(page), hint=hint)


def _is_stale(page: Path, result: Path) -> bool:
    """Tell whether a page is missing or older than its result. Without a result it is too; reading that fails later."""
    from icmlora_cli.report.result import RESULT

    source = result / RESULT if result.is_dir() else result
    if not (page.is_file() and source.is_file()):
        return True
    return page.stat().st_mtime_ns < source.stat().st_mtime_ns


def _show(page: Path, out: Out) -> bool:
    import webbrowser

    if webbrowser.open(page.as_uri()):
        return True
    out.note("no browser could be opened here; open the file in one of yours")
    return False
