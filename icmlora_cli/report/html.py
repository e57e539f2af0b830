"""``report.html``: an evaluation as one page that needs no network.

The page holds the result as JSON, and its script draws from that, so that its figures are those of ``result.json``. It
also holds plotly.js, once, from the plotly package. Task names, descriptions and model outputs are not trusted: Jinja
escapes them, the JSON is written so that it cannot end its element, and the page's content security policy allows only
the scripts that are put in here, by their hashes, and forbids all requests.
"""

import base64
import hashlib
import json
import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from icmlora_cli.disk import files
from icmlora_cli.disk.files import is_object
from icmlora_cli.report import figures
from icmlora_cli.report.page import context, labels
from icmlora_cli.report.result import Result
from icmlora_cli.report.shown import visible

REPORT = "report.html"
MARK = '<meta name="generator" content="icmlora report">'  # by which a report is recognised
SCRIPTS = ("theme.js", "charts.js", "details.js", "page.js")
FILTERS = ("number", "signed", "interval", "share", "share_interval", "probability", "size", "plural", "joined")


def _visible(value: object) -> object:
    """Return a template's value as the page shows it, with control characters and direction overrides written out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    loader = PackageLoader("icmlora_cli.report", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(figures, name) for name in FILTERS}
    return environment


def _source(environment: Environment, name: str) -> str:
    """Return the source of a file in the templates folder, without rendering it."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _plain(value: object) -> object:
    """Return a value in which NaN and infinity, which JSON cannot express, are None."""
    if is_object(value):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def embedded(value: object) -> Markup:
    """Return a value as JSON that can stand in a ``script`` element, since no text in it can end the element."""
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _policy(scripts: tuple[str, ...]) -> str:
    """Return the content security policy that lets only these scripts run, and forbids all requests."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def html_report(result: Result) -> str:
    """Return the report of a result as one HTML document.

    Args:
        result: the evaluation; generator, maps, storage and unseen tasks may be missing.

    Returns:
        The document, of about 5 MB, nearly all of which is plotly.js.
    """
    from plotly.offline import get_plotlyjs  # takes a moment to import

    environment = _environment()
    plotly = f"\n{get_plotlyjs()}\n".replace("\r\n", "\n")  # browsers hash the text with these newlines
    script = "\n".join(_source(environment, name) for name in SCRIPTS)
    page = environment.get_template("report.html.jinja").render(
        **context(result),
        mark=Markup(MARK),
        policy=_policy((plotly, script)),
        style=Markup(_source(environment, "report.css")),
        plotly=Markup(plotly),
        script=Markup(script),
        result_json=embedded(result.as_dict()),
        labels_json=embedded(labels(result)),
        recipe=json.dumps(result.recipe, indent=2, ensure_ascii=False),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair cannot be written to a file


def write_report(folder: Path, result: Result) -> Path:
    """Write ``report.html`` into a folder, in full or not at all, and return its path."""
    path = folder / REPORT
    files.write_text(path, html_report(result))
    return path


def is_report(path: Path) -> bool:
    """Return whether a file is a report that icmlora wrote, which it may therefore replace."""
    with path.open("rb") as handle:
        return MARK.encode() in handle.read(2000)
