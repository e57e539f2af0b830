"""Whatever the bytes of a foreign configuration or header are, its reader gives a value or an error of icmlora's."""

import json
import math
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icmlora_cli.disk.safetensors_header import SIZES
from icmlora_cli.errors import CorruptFileError, IcmloraError
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
    """Read a weights file's header, and check that what it gives can be: it accounts for all bytes of the file."""
    found = read_header(path)
    described = sum(math.prod(item.shape) * SIZES[item.dtype] for item in found.values())
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert 8 + length + described == path.stat().st_size
    parts = sorted_out(found, str(path))
    assert parts.of("A").keys() == parts.of("B").keys()


def read_configuration(folder: Path) -> None:
    """Read a configuration, and check that what it gives can be: each module has a rank and a finite scaling."""
    found = read_settings(folder)
    assert found.rank_of("q_proj") > 0 and math.isfinite(found.scaling("q_proj"))


@SETTINGS
@given(value=CONFIGS)
def test_a_configuration(value: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(value))
    with suppress(IcmloraError):
        read_configuration(tmp_path)


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
    with suppress(IcmloraError):
        read_weights(tmp_path / WEIGHTS)
    with suppress(IcmloraError):
        read_configuration(tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"r": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"peft_type": "LORA", "r": ' + b"9" * 4000 + b"}", "r is 9999999999"),
        (b'{"peft_type": "LORA", "lora_alpha": -1e999}', "lora_alpha is -inf"),
        (b'{"peft_type": "LORA", "base_model_name_or_path": "\\ud800"}', "not Unicode"),
        (b"[" * 500_000, "not valid JSON"),
        (b'{"a":' * 200_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_hostile_configurations(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_bytes(raw)
    with pytest.raises(CorruptFileError, match=message):
        read_settings(tmp_path)


def test_a_pattern_that_a_backtracking_engine_tries_for_ever(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 8, "rank_pattern": {".?" * 140 + "x": 4}}))
    found = read_settings(tmp_path)
    assert (found.rank_of("a" * 300), found.rank_of("a" * 140 + "x")) == (8, 4)
