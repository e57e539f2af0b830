"""Make the pictures of the playground: its page with SmolLM2 and the bundled generator, in Chromium, light and dark."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
PATIENCE = 300_000  # milliseconds, for a busy machine
TEXT = "Write the last of the three words."
INPUT = "sun, tea, owl"
EXAMPLES = "red, two, sky => sky\nhat, ice, pen => pen\nmap, fog, jar => jar\nbus, log, tin => tin"
HEIGHTS = {
    390: 3000,
    1280: 1500,
    1600: 1400,
}  # of the pictures by their widths; the rest of the page is a list of tasks
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@contextmanager
def playing(home: Path) -> Iterator[str]:
    """Start ``icmlora play`` with an empty registry; yield the address of its page."""
    environment = os.environ | {"ICMLORA_HOME": str(home), "PYTHONPATH": str(ROOT)}
    if "ICMLORA_TEST_CACHE" in os.environ:  # where SmolLM2 is already
        environment["ICMLORA_CACHE"] = os.environ["ICMLORA_TEST_CACHE"]
    command = [sys.executable, "-m", "icmlora_cli", "play", "--no-open", "--quiet", "--device", "cpu"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit("icmlora play did not start")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def make(page: "Page", key: str = "Enter", field: str = "#text") -> None:
    """Make the adapter that the page's fields describe."""
    page.press(field, key)
    page.wait_for_selector("#near:not([hidden])")
    page.wait_for_selector("#make:enabled")


def ask(page: "Page") -> None:
    """Ask all three for an answer."""
    page.fill("#input", INPUT)
    page.press("#input", "Enter")
    page.wait_for_selector("#answer-adapter .end:not(:empty)")
    page.wait_for_selector("#ask:enabled")


def picture(page: "Page", name: str, width: int, height: int) -> None:
    """Write a picture of the page from its top, in 256 colours, which is a third of the bytes."""
    from PIL import Image

    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    path = FOLDER / f"{name}.png"
    shot = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Make all pictures."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("ICMLORA_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as home, playing(Path(home)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=PATIENCE)
        for scheme in SCHEMES:
            for width, height in HEIGHTS.items():
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page.set_default_timeout(PATIENCE)
                page.goto(url)
                page.wait_for_selector("#learned li")
                page.fill("#text", TEXT)
                make(page)
                ask(page)
                picture(page, f"playground-{width}-{scheme}", width, height)
                page.context.close()
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_selector("#learned li")
        page.click("#examples-details summary")
        page.fill("#text", "Do it.")
        page.fill("#examples", EXAMPLES)
        page.fill("#budget", "10")
        make(page, "Control+Enter", "#examples")
        ask(page)
        picture(page, "playground-examples", 1280, 2150)
        browser.close()


if __name__ == "__main__":
    main()
