"""Whatever the bytes of a foreign configuration or header are, its reader gives a value or an error of icmlora's."""

import json
import struct
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icmlora_cli.errors import IcmloraError
from icmlora_cli.weights.foreign.config import CONFIG, KNOWN, read_settings
from icmlora_cli.weights.foreign.headers import read_header
from icmlora_cli.weights.foreign.keys import sorted_out
from icmlora_cli.weights.foreign.read import WEIGHTS

ODD = st.sampled_from([True, None, -1, 0, 10**400, 1e308, float("inf"), float("nan"), "\ud800", "x", "pissa", [], {}])
VALUES = st.recursive(
    ODD | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CONFIGS = st.fixed_dictionaries(
    {"peft_type": st.sampled_from(["LORA", "ADALORA"]) | VALUES},
    optional=dict.fromkeys(sorted(KNOWN - {"peft_type"}), VALUES),
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F8_E4M3"]) | VALUES,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | VALUES,
        "data_offsets": st.lists(st.integers(-4, 64), max_size=3) | VALUES,
    }
)
NAMES = st.text(max_size=12) | st.sampled_from(
    [
        "base_model.model.q.lora_A.weight",
        "base_model.model.q.lora_B.weight",
        "base_model.model.q.lora_E",
        "__metadata__",
    ]
)
SETTINGS = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_weights(path: Path) -> None:
    sorted_out(read_header(path), str(path))


@SETTINGS
@given(value=CONFIGS)
def test_a_configuration(value: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(value))
    with suppress(IcmloraError):
        found = read_settings(tmp_path)
        assert found.scaling("q_proj") == found.scaling("q_proj")


@SETTINGS
@given(header=st.dictionaries(NAMES, ENTRIES | VALUES, max_size=3), body=st.binary(max_size=64))
def test_a_header(header: dict[str, object], body: bytes, tmp_path: Path) -> None:
    raw = json.dumps(header).encode()
    (tmp_path / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    with suppress(IcmloraError):
        read_weights(tmp_path / WEIGHTS)


@SETTINGS
@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(data)
    (tmp_path / CONFIG).write_bytes(data)
    for read in (lambda: read_weights(tmp_path / WEIGHTS), lambda: read_settings(tmp_path)):
        with suppress(IcmloraError):
            read()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"r": ' + b"9" * 5000 + b"}",
        b'{"peft_type": "LORA", "r": ' + b"9" * 4000 + b"}",
        b'{"peft_type": "LORA", "lora_alpha": -1e999}',
        b'{"peft_type": "LORA", "base_model_name_or_path": "\\ud800"}',
        b'{"peft_type": "LORA", "rank_pattern": {"' + b".?" * 140 + b'x": 4}}',
        b"[" * 500_000,
        b'{"a":' * 200_000,
        b"\xff\xfe",
    ],
)
def test_hostile_configurations(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_bytes(raw)
    started = time.monotonic()
    with suppress(IcmloraError):
        read_settings(tmp_path).rank_of("a" * 300)
    assert time.monotonic() - started < 60  # for ever, in what this is a test of
