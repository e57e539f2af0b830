"""Adapters that nobody vouches for: what their import costs before they are refused is bounded."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from icmlora_cli.weights.foreign.config import CONFIG, LARGEST_CONFIG
from icmlora_cli.weights.foreign.headers import LARGEST_HEADER
from icmlora_cli.weights.foreign.read import WEIGHTS

MEASURED = """
import resource, sys
from pathlib import Path
from icmlora_cli.errors import IcmloraError
from icmlora_cli.weights.foreign.open import open_foreign

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_foreign(Path(sys.argv[1]), None)
except IcmloraError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error.message)
"""
CONFIGURED = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
ENTRY = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


def repeated(piece: str, size: int) -> str:
    """Return a piece, ``#`` being a number that rises, as often as it fits into a size in bytes."""
    if "#" not in piece:
        return ",".join([piece] * (size // (len(piece) + 1)))
    return ",".join(piece.replace("#", str(number)) for number in range(size // (len(piece) + 8)))


def refused(folder: Path) -> str:
    """Return the error of an import, whose peak memory is looked at."""
    done = subprocess.run([sys.executable, "-c", MEASURED, str(folder)], capture_output=True, text=True, check=True)
    kilobytes, message = done.stdout.split(" ", 1)
    assert int(kilobytes) * 1024 < 500_000_000, done.stdout
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    ("key", "around", "piece"),
    [
        ("rank_pattern", "[HOLE]", "{}"),
        ("anything", "[HOLE]", "{}"),
        ("alpha_pattern", "{HOLE}", '"m#":1'),
        ("alpha_pattern", "{HOLE}", '"m.*#":1'),
    ],
)
def test_a_configuration(tmp_path: Path, key: str, around: str, piece: str) -> None:
    text = json.dumps(CONFIGURED | {key: "HOLE"}).replace('"HOLE"', around)
    (tmp_path / CONFIG).write_text(text.replace("HOLE", repeated(piece, LARGEST_CONFIG - len(text))))
    assert ("there is no" if key == "anything" else key) in refused(tmp_path)


@pytest.mark.parametrize(
    ("around", "piece"),
    [
        ('{"a":[HOLE]}', "{}"),
        ('{"a":[HOLE]}', '""'),
        ('{"a":[HOLE]}', "[       ]"),
        ('{"a":{"dtype":"F32","data_offsets":[0,0],"shape":[HOLE]}}', "9" * 18),
        ("{HOLE}", '"#":0'),
        ("{HOLE}", f'"base_model.model.m#.lora_A.weight":{ENTRY}'),
    ],
)
def test_a_header(tmp_path: Path, around: str, piece: str) -> None:
    header = around.replace("HOLE", repeated(piece, LARGEST_HEADER - 100))
    (tmp_path / CONFIG).write_text(json.dumps(CONFIGURED))
    (tmp_path / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header.encode())
    refused(tmp_path)
