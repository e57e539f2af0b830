"""Every reader gives a value or an IcmloraError, whatever the bytes."""

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from icmlora_cli.errors import IcmloraError
from tests.fuzz.mutate import HOSTILE, check, mutated
from tests.fuzz.readers import READERS, safetensors

_SEQUENCES = '{"type":"Sequence","pretokenizers":['


def _with(name: str, key: str, value: str) -> bytes:
    """Return what a reader takes, with another value under one key."""
    return json.dumps(json.loads(READERS[name].seed) | {key: "HOLE"}).replace('"HOLE"', value).encode()


@pytest.mark.parametrize("name", READERS)
def test_it_takes_the_input_that_the_others_are_made_of(name: str, tmp_path: Path) -> None:
    assert check(READERS[name], READERS[name].seed, tmp_path)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), data=st.none() | st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
@example(seed=0, data=b"")
@example(seed=0, data=b"[" * 100_000)
@example(seed=0, data=b'{"a":' * 100_000)
@example(seed=0, data=b"1" * 100_000)
def test_a_value_or_an_error_that_says_what_is_wrong(name: str, seed: int, data: bytes | None) -> None:
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        check(reader, mutated(reader.seed, random.Random(seed)) if data is None else data, Path(folder))


@pytest.mark.parametrize("name", READERS)
def test_hostile_inputs(name: str, tmp_path: Path) -> None:
    for data in HOSTILE:
        check(READERS[name], data, tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("card", b"---\n" + b"[" * 30_000 + b"\n---\n", "nest"),
        ("card", b"---\n" + b"- " * 30_000 + b"\n---\n", "nest"),
        ("batch", b"[" + b"{}," * 50_000 + b"{}]", "has 50,001 texts"),
        ("batch text", b"a\n" * 50_000, "has 50,000 texts"),
        ("generator manifest", _with("generator manifest", "curve", "[" + "[]," * 50_000 + "[]]"), "curve.0"),
        ("result", _with("result", "scores", "[" + "{}," * 50_000 + "{}]"), "scores.0"),
        (
            "safetensors",
            safetensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 18 + b",9" * 50_000 + b'],"data_offsets":[0,8]}}'),
            "is broken: it has more brackets and commas than entries need",
        ),
        (
            "tokenizer",
            READERS["tokenizer"].seed.replace(b'"individual_digits": true', b'"individual_digits": []'),
            "BPE",
        ),
        ("tokenizer", _with("tokenizer", "pre_tokenizer", _SEQUENCES * 450 + "0" + "]}" * 450), "BPE"),
        ("csv", b"input,output\n" + b"a,b,c\n" * 20_000, "too many rows are wrong"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_of_very_many_errors_is_told(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / READERS[name].file
    path.write_bytes(data)
    with pytest.raises(IcmloraError) as caught:
        READERS[name].read(path)
    assert said in str(caught.value.as_dict()) and len(str(caught.value)) < 1000
