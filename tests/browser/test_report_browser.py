"""The report in a real browser: it draws the result's own figures, fetches nothing, and fits a phone."""

import json
import runpy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from icmlora_cli.report.html import write_report
from icmlora_cli.report.result import Result

pytest.importorskip("playwright")
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
PATIENCE = 180_000  # milliseconds; a busy machine takes a minute to read plotly.js
samples = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "report" / "samples.py")))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page for each sample."""
    root = tmp_path_factory.mktemp("reports")
    return {name: write_report(root / name, getattr(samples, name)()) for name in ("sample", "bare_bones", "nothing")}


@dataclass
class Viewer:
    """Opens samples' pages, each once, and keeps what they say on the console or ask of a network."""

    chromium: "Browser"
    reports: dict[str, Path]
    faults: list[str] = field(default_factory=list)
    pages: dict[tuple[str, int], "Page"] = field(default_factory=dict)

    def __call__(self, name: str = "sample", width: int = 1280) -> "Page":
        if (name, width) not in self.pages:
            self.pages[name, width] = self._open(name, width)
        return self.pages[name, width]

    def _open(self, name: str, width: int) -> "Page":
        scheme: Literal["light", "dark"] = "light" if width > 1000 else "dark"
        page = self.chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self.faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: None if _local(request.url) else self.faults.append(request.url))
        page.goto(self.reports[name].as_uri())
        return page


@pytest.fixture(scope="module")
def viewer(chromium: "Browser", reports: dict[str, Path]) -> Viewer:
    """One for all tests: a page takes a while to open."""
    return Viewer(chromium, reports)


@pytest.fixture
def show(viewer: Viewer) -> Iterator[Viewer]:
    """The viewer; at the end of a test no page may have said or fetched anything."""
    yield viewer
    assert viewer.faults == []


def _local(address: str) -> bool:
    return address.startswith(("file:", "data:", "blob:"))


def result_of(page: "Page") -> dict[str, Any]:
    """Return what plotly drew from: the page's own JSON, which test_html compares with result.json."""
    value = json.loads(page.inner_text("#result-json"))
    assert isinstance(value, dict)
    return value


def traces(page: "Page", chart: str) -> list[dict[str, Any]]:
    keys = "type, x, y, z, name, customdata, error_x, text"
    code = f"id => document.getElementById(id).data.map(({{{keys}}}) => ({{{keys}}}))"
    value = page.evaluate(code, chart)
    assert isinstance(value, list)
    return value


def wait_until(page: "Page", condition: str) -> None:
    """Wait for a condition; playwright's own wait_for_function needs eval, which the page's policy forbids."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(100)


def check_comparison(page: "Page", result: Result, part: str, metric: str) -> None:
    drawn = {}
    for trace in traces(page, "comparison-chart"):
        error = trace["error_x"]
        for method, value, low, high, custom in zip(
            trace["y"], trace["x"], error["arrayminus"], error["array"], trace["customdata"], strict=True
        ):
            assert custom[:2] == [method, value]
            assert value - low == pytest.approx(custom[2], abs=1e-12)
            assert value + high == pytest.approx(custom[3], abs=1e-12)
            drawn[method] = (value, custom[2], custom[3])
    means = [mean for mean in result.means if (mean.part, mean.metric) == (part, metric)]
    assert drawn == {mean.method: (mean.figure.value, mean.figure.low, mean.figure.high) for mean in means}
    (shown,) = page.locator("#comparison .panel:visible").all()
    assert (shown.get_attribute("data-part"), shown.get_attribute("data-metric")) == (part, metric)


def test_bars_are_the_results_means_for_every_part_and_metric(show: Viewer) -> None:
    page, result = show(), samples.sample()
    assert result_of(page) == json.loads(json.dumps(result.as_dict()))
    for part in ("seen", "unseen combination", "unseen family"):
        for metric in ("exact_match", "nll"):
            page.select_option("#comparison-part", part)
            page.select_option("#comparison-metric", metric)
            check_comparison(page, result, part, metric)
    bars = page.locator("#comparison-chart .bars .point").count()
    assert bars == len({mean.method for mean in result.means if mean.part == "unseen family"})


def test_the_heat_map_is_the_results_cells(show: Viewer) -> None:
    page, result = show(), samples.sample()
    for part in ("", "unseen combination"):
        for metric in ("nll", "exact_match"):
            page.select_option("#heat-part", part)
            page.select_option("#heat-metric", metric)
            (trace,) = traces(page, "heat-chart")
            assert trace["x"] == [method.name for method in result.methods]
            found = dict(zip(trace["y"], trace["z"], strict=True))
            tasks = [task.name for task in result.tasks if part in ("", task.part)]
            assert [key for key in found if key.startswith("task:")] == [f"task:{name}" for name in tasks]
            for name in tasks:
                figures = [result.score(name, method.name).figures.get(metric) for method in result.methods]
                assert found[f"task:{name}"] == [None if figure is None else figure.value for figure in figures]
    page.click("#heat-details summary")
    rows = page.locator("#heat-table tbody tr").count()
    assert rows == 3
    page.select_option("#heat-part", "unseen family")
    assert "not harvested" in page.inner_text("#heat-table")


def test_layers_are_means_over_the_parts_tasks(show: Viewer) -> None:
    page, result = show(), samples.sample()
    page.select_option("#layers-part", "unseen combination")
    page.select_option("#layers-measure", "cosine")
    tasks = [task.name for task in result.tasks if task.part == "unseen combination"]
    drawn = {trace["customdata"][0]: trace for trace in traces(page, "layers-chart")}
    assert set(drawn) == set(samples.MERGED)
    held = [result.score(task, "generated").reconstruction for task in tasks]
    expected = [sum(one.by_layer[layer].cosine for one in held) / len(held) for layer in range(30)]
    assert drawn["generated"]["x"] == list(range(30))
    assert drawn["generated"]["y"] == pytest.approx(expected)
    types = {trace["customdata"][0]: trace for trace in traces(page, "types-chart")}
    expected = [sum(one.by_type[name].cosine for one in held) / len(held) for name in types["generated"]["x"]]
    assert types["generated"]["y"] == pytest.approx(expected)
    page.select_option("#layers-part", "unseen family")
    assert page.locator("#layers-chart").is_hidden()
    assert "Nothing to compare on tasks of unseen families" in page.inner_text("#layers-chart-empty")


def test_maps_curves_and_storage_are_the_results(show: Viewer) -> None:
    page, result = show(), samples.sample()
    for chart, points in (("vectors-chart", result.vectors.points), ("adapters-chart", result.adapters.points)):
        named = [trace for trace in traces(page, chart) if trace["customdata"]]
        drawn = {at for t in named for at in zip(t["customdata"], t["x"], t["y"], strict=True)}
        assert drawn == {(point.task, point.x, point.y) for point in points}
    for index, name in enumerate(("reconstruction", "kl", "nll")):
        (trace,) = traces(page, f"curve-{index}")
        assert trace["x"] == [step for step, _ in result.generator.curve]
        assert trace["y"] == [losses[name] for _, losses in result.generator.curve]
    (bars,) = traces(page, "storage-chart")
    assert bars["x"] == [result.storage.generator, result.storage.one_each, result.storage.all_checkpoints]
    assert [t["x"] for t in traces(page, "even-chart") if len(t["x"]) == 1] == [[6], [14]]


def test_outputs_follow_the_task_and_stay_text(show: Viewer) -> None:
    page, result = show(), samples.sample()
    assert samples.NASTY in page.inner_text("#outputs-table") and samples.NASTY in page.inner_text(
        "#outputs-description"
    )
    page.select_option("#outputs-task", "country_capital")
    assert samples.NASTY not in page.inner_text("#outputs-table")
    row = page.locator("#outputs-table tbody tr").nth([method.name for method in result.methods].index("generated"))
    outputs = result.score("country_capital", "generated").outputs
    assert row.locator("td").all_inner_texts() == [output.output for output in outputs]
    assert [cell.get_attribute("class") for cell in row.locator("td").all()] == [
        "right" if output.exact else "wrong" for output in outputs
    ]
    assert "not harvested" in page.locator("#outputs-table tbody tr").last.inner_text()


@pytest.mark.parametrize("name", ["sample", "bare_bones", "nothing"])
def test_nothing_overflows_a_phone(show: Viewer, name: str) -> None:
    page = show(name, 390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    outside = "!element.closest('.wide') && element.getBoundingClientRect().right > 391"
    found = f"[...document.querySelectorAll('main *')].filter(element => {outside})"
    assert page.evaluate(f"{found}.map(element => element.outerHTML.slice(0, 80))") == []


def test_what_is_missing_is_told(show: Viewer) -> None:
    page, result = show("bare_bones"), samples.bare_bones()
    check_comparison(page, result, "seen", "bits_per_character")
    assert page.locator(".js-plotly-plot").count() == 2  # comparison and heat map
    assert page.locator("p.empty:visible").count() == 5


def test_light_dark_and_paper_have_their_own_colours(show: Viewer) -> None:
    page = show()
    ink = "document.getElementById('comparison-chart').layout.font.color"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    wait_until(page, f"{ink} !== '{light}'")
    page.emulate_media(color_scheme="dark", media="print")
    wait_until(page, f"{ink} === '{light}'")
    assert page.locator("nav").is_hidden() and page.locator("#comparison-part").is_hidden()
    page.emulate_media(color_scheme="light", media="screen")
