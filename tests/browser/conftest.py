"""Debian's Chromium, or that of ICMLORA_CHROMIUM, for the tests that look at pages."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("ICMLORA_CHROMIUM") or shutil.which("chromium")
START = 300_000  # milliseconds that Chromium may take to start on a busy machine


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """The browser; a test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium; name one in ICMLORA_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=START)
        yield browser
        browser.close()
