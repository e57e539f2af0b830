"""Rank and dtype come from the header of a weights file alone."""

from pathlib import Path

import pytest

from icmlora_cli.registry.lora_header import LoraFormat, lora_format
from tests.small_registry import cut, lora, safetensors


@pytest.mark.parametrize(
    ("ranks", "dtype", "rank", "name"),
    [((8, 8), "F32", "8", "fp32"), ((4, 2, 16), "BF16", "2-16", "bf16"), ((1,), "F16", "1", "fp16")],
)
def test_ranks_and_dtypes(tmp_path: Path, ranks: tuple[int, ...], dtype: str, rank: str, name: str) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(lora(ranks, dtype))
    assert lora_format(path) == LoraFormat(rank, name)


def test_a_rank_above_the_modules_width_is_its_smaller_dimension(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(lora((30,)))  # lora_A is [30, 24]
    assert lora_format(path).rank == "24"


def test_two_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(lora((2,)).replace(b'"F32"', b'"F16"', 1))
    assert lora_format(path) == LoraFormat("2", "fp16+fp32")


def test_what_is_no_lora_or_no_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    assert lora_format(path) == LoraFormat(None, None)
    path.write_bytes(safetensors(3))
    assert lora_format(path) == LoraFormat(None, "fp32")
    for data in (b"", b"1234567", lora((2,))[:40], b"\x02" + bytes(7) + b"[]", b"\x09" + bytes(7) + b'{"x": 42}'):
        path.write_bytes(data)
        assert lora_format(path) == LoraFormat(None, None)


def test_the_tensors_are_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(lora((4,)))
    cut(path, 50)
    assert lora_format(path) == LoraFormat("4", "fp32")
