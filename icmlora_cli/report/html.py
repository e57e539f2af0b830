"""``report.html``: an evaluation as one page that needs no network.

The result itself is in the page, as JSON; the page's script draws from it, so that its figures are those of
``result.json``. plotly.js comes out of the plotly package, once. Task names, descriptions and what models wrote are
nobody's to trust: Jinja escapes them, the JSON cannot close its element, and the page's security policy lets only the
scripts run that were put in here, by their hashes, and nothing be fetched.
"""

import base64
import hashlib
import json
import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from icmlora_cli.disk import files
from icmlora_cli.report import figures
from icmlora_cli.report.page import context, labels
from icmlora_cli.report.result import Result
from icmlora_cli.report.shown import visible

REPORT = "report.html"
MARK = '<meta name="generator" content="icmlora report">'
SCRIPTS = ("theme.js", "charts.js", "details.js", "page.js")
FILTERS = ("number", "signed", "interval", "share", "share_interval", "probability", "size", "plural", "joined")


def _shown(value: object) -> object:
    """Return what the page shows: of text, direction overrides and control characters are written out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    loader = PackageLoader("icmlora_cli.report", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(figures, name) for name in FILTERS}
    return environment


def _source(environment: Environment, name: str) -> str:
    """Return a file of the templates as it is."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _plain(value: object) -> object:
    """Return JSON's own kinds of value; NaN and infinity, which JSON has no word for, become null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def embedded(value: object) -> Markup:
    """Return a value as JSON that may stand in a ``script`` element: nothing in it can end the element."""
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _policy(scripts: tuple[str, ...]) -> str:
    """Return the content security policy: only these scripts run, nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def html_report(result: Result) -> str:
    """Return the page of a result.

    Args:
        result: an evaluation, with or without a generator, maps, storage and unseen tasks.

    Returns:
        One HTML document, about 5 MB, nearly all of it plotly.js.
    """
    from plotly.offline import get_plotlyjs  # takes a moment to import

    environment = _environment()
    plotly = f"\n{get_plotlyjs()}\n".replace("\r\n", "\n")  # as a browser reads it, or the hash would not fit
    own = "\n".join(_source(environment, name) for name in SCRIPTS)
    page = environment.get_template("report.html.jinja").render(
        **context(result),
        mark=Markup(MARK),
        policy=_policy((plotly, own)),
        style=Markup(_source(environment, "report.css")),
        plotly=Markup(plotly),
        script=Markup(own),
        result_json=embedded(result.as_dict()),
        labels_json=embedded(labels(result)),
        recipe=json.dumps(result.recipe, indent=2, ensure_ascii=False),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written to a file


def write_report(folder: Path, result: Result) -> Path:
    """Write ``report.html`` into a folder, whole or not at all, and return its path."""
    path = folder / REPORT
    files.write_text(path, html_report(result))
    return path


def is_report(path: Path) -> bool:
    """Say whether a file is a report of ours, which may be replaced."""
    with path.open("rb") as handle:
        return MARK.encode() in handle.read(2000)
