"""What a command that stays alive prints with ``--json`` before it goes on."""

import json
import subprocess
from typing import Any


def printed_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the JSON object that a process prints first; it fails if the process ends before that."""
    lines: list[str] = []
    assert process.stdout is not None
    while not lines or lines[-1] != "}\n":
        line = process.stdout.readline()
        assert line, process.communicate()
        lines.append(line)
    found: dict[str, Any] = json.loads("".join(lines))
    return found
