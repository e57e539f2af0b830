"""The report: one page that needs nothing else, says what there is and what is missing, and trusts no text."""

import base64
import hashlib
import json
import math
import re
import runpy
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from icmlora_cli.report.figures import joined, metric, metrics_of, number, probability, share, signed, size
from icmlora_cli.report.headline import glance, headline
from icmlora_cli.report.html import html_report, is_report, write_report
from icmlora_cli.report.result import Figure, Result

samples = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("samples.py"))))
sample: Callable[[], Result] = samples.sample


class Page(HTMLParser):
    """A page's tags, its text, its scripts and its addresses."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._inside != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, spaces folded."""
        return " ".join(" ".join(self.texts).split())

    def json(self, name: str) -> dict[str, object]:
        """A JSON element of the page."""
        value = json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == name))
        assert isinstance(value, dict)
        return value


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(html_report(sample()))


def test_the_result_in_the_page_is_the_result(page: Page) -> None:
    assert page.json("result-json") == json.loads(json.dumps(sample().as_dict()))


def test_untrusted_text_adds_no_element(page: Page) -> None:
    harmless = Page(html_report(sample()).replace(samples.NASTY, ""))
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 4 and "img" not in names
    assert names == [tag for tag, _ in harmless.tags]
    assert samples.NASTY in page.text.replace("\xa0", " ")  # a reader sees it as it is, and {{ }} does nothing
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_only_our_scripts_may_run_and_nothing_may_be_fetched(page: Page) -> None:
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; ")
    hashes = set(re.findall(r"'sha256-([^']+)'", policy))
    run = [text for attrs, text in page.scripts if "type" not in attrs]
    assert hashes == {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    script = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe" not in script and "http" not in policy


def test_nothing_is_linked_from_elsewhere(page: Page) -> None:
    links = [attrs[name] for _, attrs in page.tags for name in ("src", "href", "action", "srcset") if name in attrs]
    assert links and all(link is not None and link.startswith("#") for link in links)
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {link[1:] for link in links if link} <= ids
    assert sum("* plotly.js v" in text for _, text in page.scripts) == 1


def test_ids_are_unique_and_controls_have_labels(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    selects = {attrs["id"] for tag, attrs in page.tags if tag == "select"}
    assert selects == {attrs["for"] for tag, attrs in page.tags if tag == "label"} and len(selects) == 7


def test_the_page_has_every_part(page: Page) -> None:
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == "glance comparison heat maps layers training storage outputs tasks made".split()
    for text in (
        "recover 85 % of the harvested adapters' gain over the base in exact match on seen tasks",
        "Protocol: bare.",
        "Not really unseen: pick_last_of_5 is a near-duplicate of training tasks.",
        "Text-specific lift: +0.68 ( 0.58 to 0.78 , 3 tasks )",
        "was trained on the task's training data",
        "not harvested",
        "At this size it is smaller than one adapter a task from 14 tasks on: it is not yet there.",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "icmlora eval --tasks 'pick_*'",
    ):
        assert _words(text) in _words(page.text), text
    assert page.text.count("All 42 paired tests") == 4  # seen and unseen combination, two metrics each


def _words(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_the_comparisons_table_has_every_mean() -> None:
    result = sample()
    text = html_report(result)
    for mean in result.means:
        start = text.index(f'<div class="panel" data-part="{mean.part}" data-metric="{mean.metric}">')
        row = text[text.index(f'data-method="{mean.method}">', start) :]
        row = row[: row.index("</tr>")]
        assert f'<td class="n"><b>{number(mean.figure.value)}</b></td>' in row
        assert f"{number(mean.figure.low)} to {number(mean.figure.high)}" in row


def test_the_comparisons_table_tells_what_becomes_of_unrelated_text() -> None:
    result = sample()
    text = html_report(result)
    panels = text.split('<div class="panel"')[1:]
    for panel in panels:
        assert panel.count("Unrelated text, change of NLL") == 1
        rows = dict(re.findall(r'<tr[^>]* data-method="([^"]+)">(.*?)</tr>', panel, re.DOTALL))
        assert "+0.17 <small>0.15 to 0.20</small>" in rows["generated"] and "−0.04 <small>" in rows["average"]
        assert rows["described"].rstrip().endswith('<td class="n">–</td>')
        columns = panel.split("</thead>")[0].count('<th scope="col"')
        for row in rows.values():
            spans = re.findall(r'<t[hd](?: scope="row")?(?: class="[^"]*")?(?: colspan="(\d+)")?>', row)
            assert sum(int(span or 1) for span in spans) == columns
    assert "Unrelated text" not in html_report(samples.changed(result, unrelated=()))


def test_a_result_without_a_generator_says_what_is_missing() -> None:
    page = Page(html_report(samples.bare_bones()))
    for text in (
        "No generated adapter was scored.",
        "the best in bits per character (lower is better): harvested adapter (oracle)",
        "There are no maps",
        "There is no error to show",
        "There are no training curves",
        "There is no storage to compare",
        "No example outputs were kept.",
        "No generated adapter was compared with the training adapters.",
    ):
        assert text in page.text
    assert "Generated minus it" not in page.text and "exact match" not in page.text


def test_a_result_with_no_figure_at_all_says_why() -> None:
    page = Page(html_report(samples.nothing()))
    assert "Nothing was scored" in page.text
    assert "no method has a figure for any task (no such luck)" in page.text


def test_a_result_with_no_task_is_a_page_too() -> None:
    empty = samples.changed(samples.nothing(), tasks=(), scores=(), methods=())
    assert "No task was scored." in Page(html_report(empty)).text


def test_one_map_alone_and_a_generator_without_curve() -> None:
    result = sample()
    assert result.generator is not None
    generator = result.generator.model_copy(update={"curve": (), "figures": {}})
    page = Page(html_report(samples.changed(result, vectors=None, generator=generator)))
    assert "There is no map of task vectors" in page.text and "The generator keeps no training curve." in page.text
    assert "There is no map of adapters" not in page.text


def test_figures_that_json_cannot_say_become_null() -> None:
    result = sample()
    cell = result.scores[0].model_copy(
        update={"figures": {"perplexity": Figure(value=math.inf, low=1.0, high=math.nan)}}
    )
    page = Page(html_report(samples.changed(result, scores=(cell, *result.scores[1:]))))
    cells = page.json("result-json")["scores"]
    assert isinstance(cells, list)
    assert cells[0]["figures"] == {"perplexity": {"value": None, "low": 1.0, "high": None}}


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    result = sample()
    task = result.tasks[0].model_copy(update={"description": "broken \ud83d text"})
    path = write_report(tmp_path, samples.changed(result, tasks=(task, *result.tasks[1:])))
    assert "broken ? text" in path.read_text(encoding="utf-8")


def test_a_report_is_known_by_its_mark(tmp_path: Path) -> None:
    path = write_report(tmp_path, sample())
    assert path == tmp_path / "report.html" and is_report(path)
    (tmp_path / "other.html").write_text("<!doctype html><title>icmlora report</title>")
    assert not is_report(tmp_path / "other.html")
    assert [item.name for item in sorted(tmp_path.iterdir())] == ["other.html", "report.html"]


def test_the_main_metric_is_that_of_most_tasks() -> None:
    result = sample()
    assert [item.name for item in metrics_of(result)] == ["exact_match", "nll"]
    tasks = tuple(task.model_copy(update={"metric": "nll"}) for task in result.tasks)
    assert [item.name for item in metrics_of(samples.changed(result, tasks=tasks))] == ["nll", "exact_match"]
    assert metric("my_score").higher and not metric("perplexity").higher


def test_a_rival_was_tested_against_and_does_without_training_data() -> None:
    result = sample()
    row = glance(result, "seen", metric("exact_match"))
    assert row.rival is not None and row.rival.method == "nearest-demonstrations"
    low = glance(result, "seen", metric("nll"))
    assert low.rival is not None and low.rival.method == "nearest-demonstrations"  # the least NLL, not the largest
    assert row.against_rival is not None and row.against_rival.against == "nearest-demonstrations"


def test_the_headline_tells_what_there_is_no_oracle_for() -> None:
    assert headline(sample()).endswith("on tasks of unseen families, where there is no harvested gain to measure by.")
    means = tuple(mean.model_copy(update={"recovered": None}) for mean in sample().means if mean.metric == "nll")
    cells = tuple(cell.model_copy(update={"figures": {}}) for cell in sample().scores)
    text = headline(samples.changed(sample(), means=means, scores=cells))
    assert text.startswith("Generated from the description alone, adapters reach NLL (lower is better) 0.")
    assert "recover" not in text


def test_numbers_in_words() -> None:
    assert [number(value) for value in (0.125, -0.001, 12.34, 1234567.0, None, math.nan, math.inf)] == [
        "0.12",
        "0.00",
        "12.3",
        "1,234,567",
        "–",
        "–",
        "∞",
    ]
    assert [signed(value) for value in (0.5, -0.5, 0.001)] == ["+0.50", "−0.50", "0.00"]
    assert [share(value) for value in (0.824, -0.2, -0.001, math.nan)] == ["82\xa0%", "−20\xa0%", "0\xa0%", "–"]
    assert [probability(p) for p in (0.0004, 0.0312)] == ["< 0.001", "0.031"]
    assert [size(count) for count in (12, 1500, 13_150_000)] == ["12 bytes", "1.50 kB", "13.15 MB"]
    assert [joined(items) for items in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
