"""Every reader gives a value or an IcmloraError, whatever the bytes."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import HOSTILE, check, mutated
from tests.fuzz.readers import READERS


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
