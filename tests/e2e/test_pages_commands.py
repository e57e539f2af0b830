"""Every command line of the README and of the tutorials runs as it stands, in order, with the real base."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ("first-ten-minutes.md", "your-loras.md", "your-task.md")
TITLED = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

SERVERS = {"icmlora play": (" --no-open", ""), "icmlora serve": ("", "/models")}  # an option, and what is asked for
ASKED = """asked() {
  until url=$(grep -om1 'http://[^ ]*' server.log); do kill -0 $p; sleep 1; done
  python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()' "$url$1"
  kill -TERM $p; wait $p
}"""


def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment with registry and downloads of its own, but the base where it is at hand already."""
    cache = os.environ.get("ICMLORA_TEST_CACHE", str(tmp_path / "cache"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "ICMLORA_CACHE": cache, "HF_HUB_OFFLINE": "0"}


def run(script: str, tmp_path: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return what runs ``icmlora demo``, which two pages have, once, and gives the folder that it made."""
    folder = tmp_path_factory.mktemp("demo")

    @cache
    def made() -> Path:
        run("icmlora demo", folder)
        return folder / "icmlora-demo"

    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorials_commands(name: str, tmp_path: Path, demo: Callable[[], Path]) -> None:
    page = (ROOT / "docs" / "tutorial" / name).read_text(encoding="utf-8")
    for file, content in TITLED.findall(page):
        (tmp_path / file).write_text(content, encoding="utf-8")
    blocks = COMMANDS.findall(page)
    assert blocks
    made = f"cp -r {demo()} ." if "icmlora demo\n" in blocks else ""
    run("\n".join(made if block == "icmlora demo\n" else block for block in blocks), tmp_path)
    base = run("icmlora base show smollm2-135m --json", tmp_path)
    for code in PYTHON.findall(page):
        folder = re.search(r'"path": "([^"]+)"', base)
        assert folder is not None
        local = code.replace("HuggingFaceTB/SmolLM2-135M-Instruct", folder.group(1))  # there may be no hub
        assert "chair" in run(f"{sys.executable} - <<'END'\n{local}\nEND", tmp_path)


@pytest.mark.slow
def test_the_readmes_commands(tmp_path: Path, demo: Callable[[], Path]) -> None:
    """In the order of what they need; the servers are asked for their page, and ended."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.partition("  #")[0].strip() for block in COMMANDS.findall(page) for line in block.splitlines()]
    commands = [line.removeprefix(".venv/bin/") for line in lines if line and not line.startswith("python3 -m venv")]
    assert "icmlora demo" in page and len(commands) >= 8
    rows = [
        ("go home", "home"),
        ("see a dog", "dog"),
        ("a red car", "car"),
        ("one two three", "three"),
        ("hi you", "you"),
    ]
    text = "".join(f'{{"input": "{given}", "output": "{answer}"}}\n' for given, answer in rows)
    (tmp_path / "few.jsonl").write_text(text, encoding="utf-8")
    before = f"{ASKED}\ncp -r {demo()} . && export ICMLORA_HOME=$PWD/icmlora-demo"
    before += "\nicmlora adapter export pick_first_of_3 -o my-lora/"
    for command in commands:
        for server, (option, page_of) in SERVERS.items():
            if command.startswith(server):
                command = f"rm -f server.log; {command}{option} > server.log 2>&1 & p=$!; asked '{page_of}'"
        before += f"\n{command}"
    run(before, tmp_path)
