"""Safetensors files written block by block: what safetensors itself writes, to the byte."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.stored import shards
from icmlora_cli.weights.stored.shards import Blocks, Change, Shard, WrittenShard, read_shard, write_shard

KINDS = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


def doubled(old: object) -> Blocks:
    assert callable(old)
    for rows, block in old():
        yield rows, block * 2


def write(path: Path, shard: Shard, changes: dict[str, Change], dtype: str | None = None) -> None:
    def kind(stored: shards.StoredTensor) -> str:
        return dtype if dtype and stored.dtype in shards.FLOATS else stored.dtype

    tensors = [WrittenShard(item.name, item, kind(item), changes.get(item.name)) for item in shard.tensors]
    write_shard(path, shard, tensors, lambda: None)


@st.composite
def states(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Draw tensors of many dtypes and shapes, some of them empty, under names that need escapes."""
    names = draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), unique=True))
    found = {}
    for index, name in enumerate(name for name in names if name != "__metadata__"):
        shape = draw(st.lists(st.integers(0, 7), max_size=3))
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(index)) * 5
        found[name] = drawn.abs().to(draw(st.sampled_from(KINDS)))
    return found


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=states(), target=st.sampled_from([None, "F32", "BF16", "F16"]))
def test_byte_for_byte_as_safetensors_writes_it(
    tmp_path: Path, state: dict[str, torch.Tensor], target: str | None
) -> None:
    save_file(state, tmp_path / "in", metadata={"format": "pt"})
    changed = {name: doubled for name, item in state.items() if item.is_floating_point() and len(name) % 2}
    write(tmp_path / "out", read_shard(tmp_path / "in"), changed, target)
    wanted = {}
    for name, item in state.items():
        exact = item.to(torch.promote_types(item.dtype, torch.float32)) * 2 if name in changed else item
        cast = shards.FLOATS[target] if target and item.is_floating_point() else item.dtype
        wanted[name] = exact.to(cast)
    save_file(wanted, tmp_path / "wanted", metadata={"format": "pt"})
    assert (tmp_path / "out").read_bytes() == (tmp_path / "wanted").read_bytes()
    assert all(torch.equal(item, wanted[name]) for name, item in load_file(tmp_path / "out").items())


def test_no_more_than_a_block_is_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BLOCK", 64)
    save_file({"a": torch.arange(400.0).reshape(50, 8)}, tmp_path / "in")
    seen: list[tuple[slice, int]] = []

    def watched(old: object) -> Iterator[tuple[slice, torch.Tensor]]:
        for rows, block in doubled(old):
            seen.append((rows, block.numel()))
            yield rows, block

    write(tmp_path / "out", read_shard(tmp_path / "in"), {"a": watched})
    assert [item for rows, _ in seen for item in range(50)[rows]] == [*range(50)]
    assert len(seen) == 7 and max(count for _, count in seen) == 64
    assert torch.equal(load_file(tmp_path / "out")["a"], 2 * torch.arange(400.0).reshape(50, 8))


def test_a_header_that_others_wrote_is_kept(tmp_path: Path) -> None:
    header = {
        "b": {"shape": [2], "dtype": "F32", "data_offsets": [0, 8]},
        "__metadata__": {"format": "pt", "by": "hand"},
        "a": {"shape": [1], "dtype": "F32", "data_offsets": [8, 12]},
    }
    raw = json.dumps(header, indent=1).encode() + b"   "
    (tmp_path / "in").write_bytes(len(raw).to_bytes(8, "little") + raw + torch.ones(3).numpy().tobytes())
    write(tmp_path / "out", read_shard(tmp_path / "in"), {"b": doubled})
    assert (tmp_path / "out").read_bytes()[: 8 + len(raw)] == (tmp_path / "in").read_bytes()[: 8 + len(raw)]
    assert load_file(tmp_path / "out")["b"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_file_that_is_cut_short_is_told(tmp_path: Path, cut: int) -> None:
    save_file({"a": torch.ones(100)}, tmp_path / "in")
    (tmp_path / "in").write_bytes((tmp_path / "in").read_bytes()[:cut])
    with pytest.raises(CorruptFileError, match="not a readable safetensors file"):
        read_shard(tmp_path / "in")


def test_a_file_that_is_cut_short_meanwhile_is_told(tmp_path: Path) -> None:
    save_file({"a": torch.ones(100), "b": torch.ones(100)}, tmp_path / "in")
    shard = read_shard(tmp_path / "in")
    (tmp_path / "in").write_bytes((tmp_path / "in").read_bytes()[:-4])
    for changes in ({}, {"b": doubled}):
        with pytest.raises(CorruptFileError, match="became shorter"):
            write(tmp_path / "out", shard, changes)


def test_what_is_not_finite_is_told(tmp_path: Path) -> None:
    save_file({"a": torch.full((3,), 4e4)}, tmp_path / "in")
    with pytest.raises(CorruptFileError, match="a is not finite in F16"):
        write(tmp_path / "out", read_shard(tmp_path / "in"), {"a": doubled}, "F16")
