"""Every command line of the README and of the tutorials runs as it stands, in order, with the real base."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ("first-ten-minutes.md", "your-loras.md", "your-task.md")
TITLED = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorials_commands(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tutorial" / name).read_text(encoding="utf-8")
    for file, content in TITLED.findall(page):
        (tmp_path / file).write_text(content, encoding="utf-8")
    blocks = COMMANDS.findall(page)
    assert blocks
    run("\n".join(blocks), tmp_path)
    base = run("icmlora base show smollm2-135m --json", tmp_path)
    for code in PYTHON.findall(page):
        folder = re.search(r'"path": "([^"]+)"', base)
        assert folder is not None
        local = code.replace("HuggingFaceTB/SmolLM2-135M-Instruct", folder.group(1))  # there may be no hub
        assert "chair" in run(f"{sys.executable} - <<'END'\n{local}\nEND", tmp_path)
