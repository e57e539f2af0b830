"""A flipped bit in a manifest is found, whatever it makes of the manifest."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from icmlora_cli.disk import checksums, files
from icmlora_cli.errors import CorruptFileError

VALUE = {"schema": "x/1", "numbers": [1e-05, 3, True, None], "name": "café ’", "deep": {"a": {"b": [0.1]}}}
KNOWN = frozenset(VALUE)


def test_a_manifest_with_a_checksum_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    checksums.write_manifest(path, VALUE | {"seal": "of an earlier one"})
    assert checksums.read_checked(path, KNOWN) == VALUE
    assert list(files.read_json(path))[-1] == "seal"


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    checksums.write_manifest(path, VALUE)
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            with pytest.raises(CorruptFileError):
                checksums.read_checked(path, KNOWN)


def test_a_manifest_without_a_seal_may_hold_known_keys_only(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    files.write_json(path, VALUE)
    assert checksums.read_checked(path, KNOWN) == VALUE
    files.write_json(path, VALUE | {"sdal": "0"})
    with pytest.raises(checksums.ChecksumError, match="sdal"):
        checksums.read_checked(path, KNOWN)


def test_half_a_character_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"name": "\\ud800", "seal": "x"}', encoding="utf-8")
    with pytest.raises(CorruptFileError, match="half of a character"):
        checksums.read_checked(path, KNOWN)


def test_every_flipped_bit_of_a_safetensors_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    values = {"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), dtype=np.float16)}
    save_file(values, path, metadata=checksums.checked_metadata({"step": "7"}))
    checksums.write_checksum(path)
    assert checksums.is_intact(path) and load_file(path)["a"].tolist() == [0.0, 1.0, 2.0]
    data = path.read_bytes()
    key = data.index(checksums.IN_METADATA.encode()), data.index(checksums.IN_METADATA.encode()) + len('x":"') + 14
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 4
        path.write_bytes(bytes(damaged))
        assert not checksums.is_intact(path, required=True), at
        if not key[0] - 1 <= at < key[1]:  # without its key there is no checksum, as in files of before there were any
            assert not checksums.is_intact(path), at


def test_a_safetensors_file_of_before_there_were_checksums_counts_as_whole(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file({"a": np.zeros(3, dtype=np.float32)}, path)
    assert checksums.is_intact(path) and not checksums.is_intact(path, required=True)
    with pytest.raises(ValueError, match="checked_metadata"):
        checksums.write_checksum(path)
