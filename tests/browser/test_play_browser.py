"""The playground in a real browser, before the real server: type, make, ask, download; nothing foreign is asked for."""

import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import icmlora_cli
from tests.cli.conftest import Registry, _template
from tests.printed import printed_json

pytest.importorskip("playwright")
pytest.importorskip("fastapi", reason="the extra icmlora[serve] is not installed")
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["_template"]
pytestmark = pytest.mark.browser
PATIENCE = 300_000  # milliseconds, for a busy machine; no test waits for a time to pass
CAT = "Always answer with cat."
NASTY = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;<b>bold</b>"
FIGURES = Path(__file__).parents[1] / "report" / "samples.py"


@contextmanager
def playing(environment: Mapping[str, str], *arguments: object) -> Iterator[dict[str, Any]]:
    """Start ``icmlora play``; yield what it printed. At the end Ctrl-C has to end it cleanly."""
    command = [sys.executable, "-m", "icmlora_cli", "play", "--no-open", "--json", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)], env=dict(environment), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield printed_json(process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE / 1000)
        assert process.returncode == 0 and stderr.count("\n") == 1, stderr
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def url(_template: Path, tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a server with a tiny base, a trained registry and a made-up evaluation."""
    root = tmp_path_factory.mktemp("play")
    for name in ("icmlora-home", "icmlora-cache"):
        shutil.copytree(_template / name, root / name)
    registry = Registry(root, tiny_bases["llama"])
    from icmlora_cli.report.result import write_result

    write_result(root / "results", runpy.run_path(str(FIGURES))["sample"]())
    with playing(registry.environment, "--results", root / "results") as printed:
        yield str(printed["url"])


@dataclass
class Visitor:
    """Opens pages, and keeps what they say on the console or ask of another server."""

    chromium: "Browser"
    faults: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()  # what the console may say of answers that are errors, which the test provokes

    def open(self, url: str, width: int = 1280, scheme: Any = "light") -> "Page":
        """Open the page, and wait until it shows what the server has."""
        page = self.chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        own = url.split("/play/")[0] + "/"
        page.on("console", lambda message: self._said(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._asked(request.url, own))
        page.goto(url)
        page.wait_for_selector("#learned li")
        return page

    def _said(self, text: str) -> None:
        if not any(part in text for part in self.expected):
            self.faults.append(text)

    def _asked(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", f"blob:{own}")):
            self.faults.append(f"request: {url}")


@pytest.fixture
def visitor(chromium: "Browser") -> Iterator[Visitor]:
    """A visitor; at the end no page may have said anything, or asked another server."""
    made = Visitor(chromium)
    yield made
    for context in list(chromium.contexts):
        context.close()
    assert made.faults == []


def wait_until(page: "Page", condition: str, argument: object = None) -> None:
    """Wait for a condition; playwright's own wait_for_function needs eval, which the page's policy forbids."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def done(page: "Page", name: str) -> None:
    """Wait until what a button began is over."""
    wait_until(page, "id => !document.getElementById(id).disabled", name)
    assert page.is_hidden(f"#{name}-stop")


def send(page: "Page", name: str, field: str, key: str = "Enter") -> None:
    """Press a key in a field, and wait until what it began is done."""
    page.evaluate("id => { document.getElementById(id).textContent = 'not begun'; }", f"{name}-status")
    page.press(f"#{field}", key)
    wait_until(page, "id => document.getElementById(id).textContent.startsWith('Done in')", f"{name}-status")
    done(page, name)


def make(page: "Page", text: str) -> None:
    """Type a task and press Enter; return once the adapter is made and explained."""
    page.fill("#text", text)
    send(page, "make", "text")
    assert page.locator("#steps li.done").count() == 3 and page.is_visible("#near")


def ask(page: "Page", text: str) -> dict[str, str]:
    """Type an input and press Enter; return the answers by their columns."""
    page.fill("#input", text)
    send(page, "ask", "input")
    cards = page.locator("#answers article")
    found = {}
    for index in range(cards.count()):
        name = str(cards.nth(index).get_attribute("id")).removeprefix("answer-")
        assert "word piece" in cards.nth(index).locator(".end").inner_text()
        found[name] = cards.nth(index).locator(".answer").inner_text()
    return found


def downloaded(page: "Page", button: str) -> tuple[str, bytes]:
    with page.expect_download() as found:
        page.click(button)
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def test_type_make_ask_download_by_keyboard(url: str, visitor: Visitor) -> None:
    page = visitor.open(url)
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type(CAT)
    page.keyboard.press("Enter")
    wait_until(page, "() => document.activeElement.id === 'input'")  # the input is next
    page.keyboard.type("word 5")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer-adapter .end:not(:empty)")
    done(page, "ask")
    assert page.inner_text("#made-text") == CAT
    assert re.search(r"Size\s+[\d.]+ [kM]?B", page.inner_text("#made-figures"))
    assert page.inner_text("#nearest tbody tr:first-child th").startswith(CAT)
    found = ask(page, "word 6")
    assert list(found) == ["base", "described", "adapter"] and found["base"] != found["adapter"]
    name, data = downloaded(page, "#save-zip")
    assert name == "always-answer-with-cat.zip"
    assert "adapter_model.safetensors" in zipfile.ZipFile(io.BytesIO(data)).namelist()
    name, data = downloaded(page, "#save-gguf")
    assert name == "always-answer-with-cat.gguf" and data[:4] == b"GGUF"
    page.click("#answer-described summary")
    assert page.inner_text("#answer-described .prompt") == f"{CAT}\nQ: word 6\nA:"


def test_examples_help_and_all_that_was_tried_is_shown(url: str, visitor: Visitor) -> None:
    page = visitor.open(url)
    page.click("#examples-details summary")
    page.fill("#text", "Say it.")
    page.fill("#examples", "\n".join(f"word {index} => dog" for index in (60, 61, 62)))
    page.fill("#budget", "2")
    send(page, "make", "examples", "Control+Enter")
    assert page.is_visible("#evidence")
    rows = [row.split("\t") for row in page.locator("#tried tbody tr").all_inner_texts()]
    assert len(rows) >= 4 and rows[0][0] == "The model alone, no adapter"
    (kept,) = (row for row in rows if row[-1].strip() == "kept")
    assert float(kept[1]) == min(float(row[1]) for row in rows) < float(rows[0][1])
    assert kept[1] in page.inner_text("#evidence-note") and rows[0][1] in page.inner_text("#evidence-note")
    found = ask(page, "word 70")
    assert found["adapter"] != found["base"]


def test_what_is_under_way_can_be_stopped(url: str, visitor: Visitor) -> None:
    page = visitor.open(url)
    page.click("#examples-details summary")
    page.fill("#text", "Say it.")
    page.fill("#examples", "\n".join(f"word {index} => dog" for index in (60, 61, 62)))
    page.fill("#budget", "600")
    page.click("#make")
    page.wait_for_selector("#progress:not([hidden])")
    page.keyboard.press("Escape")
    done(page, "make")
    assert page.inner_text("#make-status") == "Stopped." and page.is_hidden("#made")
    page.fill("#examples", "")
    make(page, CAT)  # the next one does not wait for what was stopped


def test_texts_of_others_are_texts(url: str, visitor: Visitor) -> None:
    page = visitor.open(url)
    make(page, NASTY)
    assert page.inner_text("#made-text") == NASTY and page.locator("#made-text *").count() == 0
    found = ask(page, NASTY)
    assert set(found) == {"base", "described", "adapter"}
    page.click("#answer-base summary")
    assert page.inner_text("#answer-base .prompt") == f"Q: {NASTY}\nA:"
    assert page.locator("main img, main b, main script").count() == 0
    assert page.locator("#adapter option").first.inner_text().startswith("<img src=x")


def test_what_is_wrong_is_said_once_and_where(url: str, visitor: Visitor) -> None:
    visitor.expected = ("400 (Bad Request)",)
    page = visitor.open(url)
    page.press("#text", "Enter")
    page.wait_for_selector("#make-error:not([hidden])")
    assert page.inner_text("#make-error") == "The task text is empty."
    assert page.get_attribute("#text", "aria-invalid") == "true"
    page.fill("#text", "x" * 2001)
    page.click("#make")
    wait_until(page, "() => document.getElementById('make-error').textContent.includes('2,001')")
    page.click("#examples-details summary")
    page.fill("#text", CAT)
    page.fill("#examples", "one\ntwo => 2")
    page.click("#make")
    wait_until(page, "() => document.getElementById('make-error').textContent.startsWith('Line 1 has no =>')")
    assert page.get_attribute("#examples", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "examples"
    page.press("#input", "Enter")
    page.wait_for_selector("#ask-error:not([hidden])")
    assert page.inner_text("#ask-error") == "The input is empty." and page.locator("#answers article").count() == 0
    page.fill("#examples", "")
    make(page, CAT)
    assert page.is_hidden("#make-error") and page.get_attribute("#examples", "aria-invalid") is None


def test_two_tabs_do_not_disturb_each_other(url: str, visitor: Visitor) -> None:
    first, second = visitor.open(url), visitor.open(url)
    first.fill("#text", CAT)
    second.fill("#text", "Write dog.")
    first.press("#text", "Enter")
    second.press("#text", "Enter")
    for page, text in ((first, CAT), (second, "Write dog.")):
        page.wait_for_selector("#near:not([hidden])")
        done(page, "make")
        assert page.inner_text("#made-text") == text
        assert page.inner_text("#nearest tbody tr:first-child small") == f"always_{'cat' if page is first else 'dog'}"
    third = visitor.open(url)  # what was made elsewhere is offered here too
    options = third.locator("#adapter option").all_inner_texts()
    assert CAT in options and "Write dog." in options


def test_the_registry_is_browsed_and_used(url: str, visitor: Visitor) -> None:
    page = visitor.open(url)
    page.fill("#filter", "dog")
    assert [text.split("\n")[0] for text in page.locator("#registry .what").all_inner_texts()] == [
        "Always answer with dog."
    ]
    page.click("#registry button:has-text('Try its adapter')")
    wait_until(page, "() => document.getElementById('input').value.startsWith('word ')")
    assert "the right answer is: dog" in page.inner_text("#expected") and page.is_disabled("#template")
    send(page, "ask", "input")
    assert page.locator("#answer-adapter .end:not(:empty)").count() == 1
    name, data = downloaded(page, "#registry button:has-text('zip')")
    assert name == "always-dog.zip" and "README.md" in zipfile.ZipFile(io.BytesIO(data)).namelist()
    page.fill("#filter", "no such words")
    assert page.inner_text("#learned") == "No task has these words."
    page.fill("#filter", "")
    page.click("#learned button >> nth=0")
    assert page.input_value("#text") == CAT


@pytest.mark.parametrize("width", [390, 1600])
def test_the_evaluation_is_shown(url: str, visitor: Visitor, width: int) -> None:
    page = visitor.open(url, width)
    page.click("#show-comparison")
    frame = page.frame_locator("#report")
    frame.locator("#comparison-chart .barlayer").wait_for()
    page.click("#show-maps")
    frame.locator("#vectors-chart .scatterlayer").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const level = (c) => {
    const part = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = [c.r, c.g, c.b].map(part);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.a === 1) return colour;
      if (colour.a !== 0) throw new Error("a background that is partly clear");
    }
    return { r: 255, g: 255, b: 255, a: 1 };
  };
  const found = [];
  const compare = (node, colour, what) => {
    const [a, b] = [level(parse(colour)), level(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), what]);
  };
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility() || node.tagName === "IFRAME") continue;
    const style = getComputedStyle(node);
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const name = `${node.tagName} ${node.id} ${node.className}: ${node.textContent.trim().slice(0, 40)}`;
    if (text || ["INPUT", "TEXTAREA", "SELECT"].includes(node.tagName)) compare(node, style.color, name);
    const sides = ["INPUT", "TEXTAREA"].includes(node.tagName) ? ["::placeholder"] : ["::before", "::after"];
    for (const side of sides) {
      const { content, color } = getComputedStyle(node, side);
      const is_shown = side === "::placeholder" || !["none", '""', "normal"].includes(content);
      if (is_shown) compare(node, color, `${side} of ${name}`);
    }
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1600])
def test_it_fits_and_can_be_read(url: str, visitor: Visitor, width: int, scheme: str) -> None:
    visitor.expected = ("400 (Bad Request)",)
    page = visitor.open(url, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.click("#examples-details summary")
    make(page, f"{CAT} {'verylongwordwithoutanyspace' * 4} {NASTY}")
    ask(page, "x" * 80)
    for summary in page.locator("#answers summary").all():
        summary.click()
    page.fill("#examples", "one")
    page.click("#make")
    page.wait_for_selector("#make-error:not([hidden])")
    page.evaluate(
        "() => { const it = document.getElementById('outside'); it.hidden = false; it.textContent = 'Careful.'; }"
    )
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"
    )
    found = page.evaluate(CONTRAST)
    assert len(found) > 60
    assert [item for item in found if item[0] < 4.5] == []
    focused = page.evaluate("() => { document.getElementById('make').focus(); return true; }")
    assert focused
    page.keyboard.press("Shift+Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_every_control_has_a_name_and_is_reached_by_tab(url: str, visitor: Visitor) -> None:
    page = visitor.open(url)
    page.click("#examples-details summary")
    make(page, CAT)
    names = page.evaluate(
        "() => [...document.querySelectorAll('input, textarea, select')].filter((each) => each.checkVisibility())"
        ".map((each) => [each.id, each.labels.length])"
    )
    assert len(names) >= 8 and [name for name, count in names if count != 1] == []
    page.click("h1")  # from here on
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    order = ["text", "examples", "budget", "make", "save-zip", "save-gguf", "adapter", "input", "ask"]
    assert [name for name in reached if name in order] == order


def test_another_page_cannot_use_it(url: str, chromium: "Browser", tmp_path: Path) -> None:
    """A page of another origin in the same browser, which even knows the token, gets nothing and changes nothing."""
    import http.server
    import threading

    (tmp_path / "index.html").write_text("<!doctype html><title>another</title>", encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, directory=str(tmp_path), **options)

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        page = chromium.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        send = """async ([url, mode, type]) => {
          try {
            const options = { method: "POST", mode, headers: { "Content-Type": type }, body: '{"text": "Foreign."}' };
            const response = await fetch(`${url}api/make`, options);
            return `${response.type} ${response.status}`;
          } catch (error) { return String(error); }
        }"""
        assert "Failed to fetch" in page.evaluate(send, [url, "cors", "application/json"])
        assert page.evaluate(send, [url, "no-cors", "text/plain"]) == "opaque 0"
        frames = page.evaluate(
            """async (url) => {
              const frame = document.createElement("iframe");
              const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
              frame.src = url;
              document.body.append(frame);
              await loaded;
              try { return frame.contentWindow.document.title; } catch (error) { return error.name; }
            }""",
            url,
        )
        assert frames == "SecurityError"  # it is not shown in a frame of another page
        page.goto(url)
        page.wait_for_selector("#learned li")
        assert "Foreign." not in page.inner_text("#adapter")
        page.context.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_smollm2_with_the_bundled_generator(visitor: Visitor, tmp_path: Path) -> None:
    """What a newcomer does: no registry, no generator of one's own."""
    package = str(Path(icmlora_cli.__file__).parents[1])
    environment = os.environ | {"ICMLORA_HOME": str(tmp_path / "home"), "PYTHONPATH": package}
    if "ICMLORA_TEST_CACHE" in os.environ:  # where SmolLM2 is already
        environment["ICMLORA_CACHE"] = os.environ["ICMLORA_TEST_CACHE"]
    with playing(environment) as printed:
        page = visitor.open(str(printed["url"]))
        assert "smollm2-135m" in page.inner_text("#facts") and page.locator("#chips button").count() >= 4
        make(page, "Write the last of the three words.")
        assert "pick_last_of_3" in page.inner_text("#nearest") and page.is_hidden("#outside")
        found = ask(page, "sun, tea, owl")
        assert found["adapter"] == "owl" and found["base"] != "owl"
        name, data = downloaded(page, "#save-zip")
        assert name == "write-the-last-of-the-three-words.zip" and len(data) > 1_000_000
        make(page, "Say it.")  # this says of nothing what the generator learned
        assert page.is_visible("#outside")
        page.fill("#filter", "capitalize_word")
        page.click("#learned button")
        wait_until(page, "() => document.getElementById('input').value !== 'sun, tea, owl'")
        send(page, "make", "text")
        send(page, "ask", "input")
        assert page.locator("#answer-adapter .right").count() == 1  # the answer is the one that was expected
        page.click("#examples-details summary")
        page.fill("#text", "Do it.")
        page.fill("#examples", "red, two, sky => sky\nhat, ice, pen => pen\nmap, fog, jar => jar\nbus, log, tin => tin")
        page.fill("#budget", "5")
        send(page, "make", "examples", "Control+Enter")
        assert page.locator("#tried tr.kept").count() == 1
        assert ask(page, "sun, tea, owl")["adapter"] == "owl"  # the text says nothing; the examples say it
