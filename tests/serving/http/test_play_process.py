"""``icmlora play`` and ``icmlora serve --ui`` as processes: what they print, whom they let in, how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2 as httpx
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

pytest.importorskip("fastapi", reason="the extra icmlora[serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra icmlora[serve] is not installed")
pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")

SEARCHED = "\n".join(f"word {index} => cat" for index in range(50, 56))
SECONDS = 300.0  # after which a server counts as hanging; no test waits for a time to pass


@contextmanager
def running(registry: "Registry", *arguments: object, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a command; it is killed at the end if it still runs."""
    command = [sys.executable, "-m", "icmlora_cli", *map(str, arguments), "--device", "cpu"]
    process = subprocess.Popen(
        command, env=dict(registry.environment) | environment, cwd=registry.root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def printed(process: "subprocess.Popen[str]", last: str = "}\n") -> str:
    """Return what a process prints up to a line."""
    lines: list[str] = []
    assert process.stdout is not None
    while not lines or lines[-1] != last:
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()
    return "".join(lines)


def ended(process: "subprocess.Popen[str]", number: int) -> str:
    """Send a signal; return what is left of stderr once the process has ended with exit code 0."""
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0 and stdout == "", stderr
    return stderr


def post(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = httpx.post(f"{url}api/make", json=body, timeout=SECONDS)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_play_prints_its_address_and_ends_on_ctrl_c(trained: "Registry") -> None:
    with running(trained, "play", "--no-open", "--json") as process:
        value = json.loads(printed(process))
        assert set(value) == {"schema", "url", "base", "generator", "opened"} and value["schema"] == "icmlora.play/1"
        assert value["base"] == trained.base.name and value["generator"] == "default" and value["opened"] is False
        url = value["url"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/play/[\w-]{20,}/", url)
        assert httpx.get(url, timeout=SECONDS).status_code == 200
        assert httpx.get(url.split("/play/")[0] + "/play/", timeout=SECONDS).status_code == 403
        assert [event["event"] for event in post(url, {"text": "Say cat."})][-1] == "near"
        assert ended(process, signal.SIGINT) == f"the playground of {value['base']}: {url} (Ctrl-C ends it)\n"


def test_ctrl_c_ends_searches_too(trained: "Registry") -> None:
    """A search may be done within the grace; five of them, one after another, are not."""
    with running(trained, "play", "--no-open", "--json") as process:
        url = json.loads(printed(process))["url"]
        begun, body = threading.Event(), {"text": "Say cat.", "examples": SEARCHED, "budget": 600}

        def search(_: int) -> str:
            with httpx.stream("POST", f"{url}api/make", json=body, timeout=SECONDS) as response:
                last = ""
                for last in response.iter_lines():
                    if "progress" in last:
                        begun.set()
            return last

        with ThreadPoolExecutor(5) as pool:
            found = pool.map(search, range(5))
            assert begun.wait(SECONDS)
            state = httpx.get(f"{url}api/state", timeout=SECONDS)
            assert state.status_code == 200  # the page is answered meanwhile
            process.send_signal(signal.SIGINT)
            ends = [json.loads(line) for line in found]
        stopped = [end["error"]["code"] for end in ends if "error" in end]
        assert stopped and set(stopped) == {"server_stopping"}
        _, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and "Traceback" not in stderr


@pytest.mark.skipif(os.name != "posix", reason="the browser of this test is a shell script")
def test_it_opens_the_browser(trained: "Registry") -> None:
    script, opened = trained.root / "browser.sh", trained.root / "opened.txt"
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n', encoding="utf-8")
    script.chmod(0o755)
    with running(trained, "play", "--json", BROWSER=f"{script} %s") as process:
        value = json.loads(printed(process))
        assert value["opened"] is True
        end = time.monotonic() + SECONDS
        while not opened.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert opened.read_text() == value["url"] + "\n"
        ended(process, signal.SIGTERM)


def test_serve_has_the_page_beside_the_api(trained: "Registry") -> None:
    (trained.root / "keys").write_text("secret\n", encoding="utf-8")
    arguments = ("serve", "-g", "default", "--ui", "--port", 0, "--api-key-file", "keys", "--json")
    with running(trained, *arguments) as process:
        value = json.loads(printed(process))
        url = value["playground"]
        assert url.startswith(value["url"].removesuffix("v1") + "play/")
        assert httpx.get(f"{url}api/state", timeout=SECONDS).json()["base"] == trained.base.name
        models = f"{value['url']}/models"
        assert httpx.get(models, timeout=SECONDS).status_code == 401
        assert httpx.get(models, headers={"Authorization": "Bearer secret"}, timeout=SECONDS).status_code == 200
        assert f"the playground: {url}\n" in ended(process, signal.SIGTERM)


def test_quiet_prints_the_address_alone(trained: "Registry") -> None:
    with running(trained, "play", "--no-open", "--quiet") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(url, timeout=SECONDS).status_code == 200
        assert ended(process, signal.SIGINT) == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("play", "-g", "no-such-generator"), 1, "no generator"),
        (("play", "--results", "no-such-folder"), 1, "result.json"),
        (("serve", "--ui"), 2, "--ui needs a generator"),
        (("serve", "--results", "some-folder"), 2, "by the playground alone"),
        (("serve", "--ui", "-g", "default", "--host", "0.0.0.0"), 2, "for this machine alone"),
        (("serve", "--ui", "-g", "default", "--results", "no-such-folder"), 1, "result.json"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(
    trained: "Registry", arguments: tuple[str, ...], code: int, said: str
) -> None:
    error = trained.json(*arguments, code=code)["error"]
    assert said in error["message"] and error["hint"]


def test_a_port_in_use_is_said(trained: "Registry") -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = trained.json("play", "--no-open", "--port", port, code=2)["error"]
    assert f"127.0.0.1:{port}" in error["message"] and "--port" in error["hint"]
