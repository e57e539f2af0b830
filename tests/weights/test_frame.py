"""Seeded frames: the same each time, orthonormal, exact for what was trained in them, extended for what was not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.codec import relative_error
from icmlora_cli.weights.compare import compare
from icmlora_cli.weights.frame import (
    FrameSpec,
    extended_frame,
    framed_adapter,
    learned_directions,
    seeded_frame,
    with_directions,
)
from icmlora_cli.weights.layout import Layout, ModuleShape

SHAPES = (("m.0.q_proj", 12, 10), ("m.0.v_proj", 3, 10), ("m.1.q_proj", 12, 10))
LAYOUT = Layout(tuple(ModuleShape(*shape) for shape in SHAPES))
SPEC = FrameSpec(seed=7, width=4)


def foreign(seed: int, rank: int = 2) -> Adapter:
    rng = torch.Generator().manual_seed(seed)
    factors = {
        name: Factors(torch.randn(rank, inn, generator=rng), torch.randn(out, rank, generator=rng))
        for name, out, inn in SHAPES
    }
    return Adapter("b", 2.0, factors)


def test_a_seed_gives_the_same_orthonormal_frame_and_another_seed_another() -> None:
    one, two, other = (seeded_frame(LAYOUT, spec, "b") for spec in (SPEC, SPEC, FrameSpec(8, 4)))
    for index, (u, v) in enumerate(zip(one.left, one.right, strict=True)):
        assert torch.equal(u, two.left[index]) and torch.equal(v, two.right[index])
        assert torch.allclose(u.T @ u, torch.eye(u.shape[1]), atol=1e-6)
        assert torch.allclose(v @ v.T, torch.eye(v.shape[0]), atol=1e-6)
        assert not torch.allclose(u, other.left[index], atol=0.1)
    assert one.left[1].shape == (3, 3)  # no wider than the module
    assert not torch.allclose(one.left[0], one.left[2], atol=0.1)  # each module has its own


def test_cores_are_kept_exactly() -> None:
    frame = seeded_frame(LAYOUT, SPEC, "b")
    cores = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)) * frame.mask()
    adapter = framed_adapter(frame, cores)
    assert {item.rank for item in adapter.factors.values()} == {4} and adapter.scaling("m.0.q_proj") == 1.0
    assert torch.allclose(frame.encode(adapter), cores, atol=1e-5)
    assert compare(frame.decode(cores), adapter).all.error < 1e-5


def test_learned_directions_take_in_foreign_adapters() -> None:
    frame = seeded_frame(LAYOUT, SPEC, "b")
    items = [foreign(0), foreign(1)]
    alone = [relative_error(frame, item) for item in items]
    wide, narrow = extended_frame(frame, items, 4), extended_frame(frame, items, 1)
    for before, item in zip(alone, items, strict=True):
        assert relative_error(wide, item) < 1e-3 < 0.5 < before
        assert relative_error(wide, item) < relative_error(narrow, item) < before
    for u, v in zip(wide.left, wide.right, strict=True):
        assert torch.allclose(u.T @ u, torch.eye(u.shape[1]), atol=1e-5)
        assert torch.allclose(v @ v.T, torch.eye(v.shape[0]), atol=1e-5)
    assert torch.equal(wide.left[0][:, :4], frame.left[0])  # the seeded part stays what the seed gives
    within = framed_adapter(frame, torch.ones(3, 4, 4) * frame.mask())
    assert extended_frame(frame, [within], 3).width == 4  # nothing to add


@pytest.mark.parametrize("directions", [0, 1, 3])
@pytest.mark.parametrize("width", [2, 4, 12])  # narrower than all sides, wider than one, as wide as all
def test_learned_directions_and_the_seed_give_the_frame_back(tmp_path: Path, directions: int, width: int) -> None:
    spec = FrameSpec(seed=7, width=width)
    frame = seeded_frame(LAYOUT, spec, "b")
    items = [foreign(seed) for seed in range(3)]
    wide = extended_frame(frame, items, directions) if directions else frame
    named = learned_directions(wide, spec.width)
    save_file(named, tmp_path / "directions.safetensors")
    again = with_directions(seeded_frame(LAYOUT, spec, "b"), load_file(tmp_path / "directions.safetensors"))
    assert again.width == wide.width and again.layout == wide.layout and again.base_model == "b"
    for side in ("left", "right"):
        for found, wanted in zip(getattr(again, side), getattr(wide, side), strict=True):
            assert torch.equal(found, wanted)
    for item in items:
        assert torch.equal(again.encode(item), wide.encode(item))
    learned = sum(item.numel() for item in named.values())
    whole = sum(item.numel() for item in wide.tensors().values())
    assert learned == whole - sum(item.numel() for item in frame.tensors().values())


def test_a_frame_alone_has_nothing_to_keep() -> None:
    assert learned_directions(seeded_frame(LAYOUT, SPEC, "b"), SPEC.width) == {}
