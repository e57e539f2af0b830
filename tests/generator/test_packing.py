"""Stored forms of numbers: errors within the theoretical bounds, a quarter of the bytes, and what is stored is used."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.generator.checkpoint import CONFIG, WEIGHTS, Generator, load_generator, save_generator, stored
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.interface import NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.packing import SCALE, SMALL, Storage, packed, unpacked
from icmlora_cli.manifests.generator import GeneratorAbout, GeneratorBase
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.codec import Codec, fit_codec
from icmlora_cli.weights.frame import FrameSpec, extended_frame, seeded_frame
from icmlora_cli.weights.layout import Layout, ModuleShape

ABOUT = GeneratorAbout(key="kept", base=GeneratorBase(name="tiny", weight_hash="w" * 64), tasks={})
HIDDEN = 40
STORAGES: tuple[Storage, ...] = ("fp32", "bf16", "int8")
MODULES = tuple(ModuleShape(f"m.{layer}.{kind}", 64, 48) for layer in range(3) for kind in ("q_proj", "v_proj"))
FRAME = FrameSpec(seed=3, width=8)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4, 1e-6, 1e4])
def test_int8_errors_are_within_half_a_step_of_each_row(size: float) -> None:
    item = numbers(3, 32, 64) * size
    item[0, 3] *= 1e-3  # a row keeps its own scale
    kept = packed({"w": item}, "int8")
    assert kept["w"].dtype == torch.int8 and kept["w"].shape == item.shape
    assert kept["w" + SCALE].shape == (3, 32, 1)
    error = (unpacked(kept)["w"] - item).abs().amax(-1)
    largest = item.abs().amax(-1)
    assert bool((error <= largest / 254 * (1 + 2**-7)).all()), float((error / largest).max() * 254)
    assert bool((kept["w"].abs().amax(-1) >= 126).all())  # the whole range of a byte is used


def test_bf16_errors_are_within_half_a_unit_in_the_last_place() -> None:
    item = numbers(70, 90)
    kept = packed({"w": item}, "bf16")
    assert kept["w"].dtype == torch.bfloat16
    assert bool(((unpacked(kept)["w"] - item).abs() <= item.abs() * 2**-8).all())


def test_fp32_is_exact() -> None:
    item = {"w": numbers(70, 90), "n": torch.arange(5)}
    back = unpacked(packed(item, "fp32"))
    assert all(torch.equal(back[name], item[name]) for name in item)


@pytest.mark.parametrize("storage", STORAGES)
def test_integers_are_kept_as_they_are(storage: Storage) -> None:
    item = {"ids": torch.arange(10_000).reshape(100, 100), "flags": torch.ones(80, 80, dtype=torch.bool)}
    back = unpacked(packed(item, storage))
    assert all(torch.equal(back[name], item[name]) and back[name].dtype == item[name].dtype for name in item)


def test_what_is_small_or_a_vector_is_bf16_where_the_rest_is_int8() -> None:
    kept = packed(
        {"small": numbers(SMALL // 64 - 1, 64), "vector": numbers(2 * SMALL), "big": numbers(SMALL, 1)}, "int8"
    )
    assert kept["small"].dtype == kept["vector"].dtype == torch.bfloat16
    assert kept["big"].dtype == torch.int8
    assert set(kept) == {"small", "vector", "big", "big" + SCALE}


def test_zeros_stay_zeros() -> None:
    item = torch.zeros(80, 80)
    item[1] = numbers(80)
    back = unpacked(packed({"w": item}, "int8"))["w"]
    assert torch.isfinite(back).all() and not back[0].any() and not back[2:].any() and back[1].any()


def test_a_tensor_whose_own_name_ends_like_a_scale_is_kept() -> None:
    item = {"module.scale": numbers(6), "module_scale": numbers(7)}
    back = unpacked(packed(item, "int8"))
    assert set(back) == set(item)


def codec(basis: str) -> tuple[Codec, FrameSpec | None]:
    factors = [
        {item.name: Factors(numbers(4, 48, seed=7 + at), numbers(64, 4, seed=seed)) for at, item in enumerate(MODULES)}
        for seed in range(3)
    ]
    adapters = [Adapter("b", 4.0, item) for item in factors]
    if basis == "learned":
        return fit_codec(adapters), None
    frame = seeded_frame(Layout(MODULES), FRAME, "b")
    return (frame if basis == "frame" else extended_frame(frame, adapters, 4)), FRAME


def generator(basis: str = "frame", hidden_dim: int = 64, **head: Any) -> Generator:
    """Return an untrained generator whose adapters depend on the text."""
    made, spec = codec(basis)
    rng = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    model = build(
        NetworkConfig(
            "token", tuple((at // 2, at % 2) for at in range(6)), made.width, HIDDEN, 16, hidden_dim, 48,
            reader="attention", reader_dim=32, condition_dim=64, **head,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, item in model.named_parameters():
            if name == "heads":
                item.mul_(20.0)
            if name == "scale":
                item.fill_(0.7)
        model.start(numbers(3, 6, made.width, made.width, seed=2))
    space = ConditionSpace(
        SlotStatistics.of(torch.randn(60, HIDDEN, generator=rng)),
        SlotStatistics.of(torch.randn(60, HIDDEN, generator=rng)),
    )
    scale = 0.1 + torch.rand(6, generator=rng)
    return Generator(model.eval(), made, space, scale, made.width, spec)


def distance(made: Adapter, wanted: Adapter) -> float:
    """Return ||difference of delta-W|| / ||wanted delta-W||."""
    missed = sum(float((made.delta(name) - wanted.delta(name)).square().sum()) for name in wanted.factors)
    return math.sqrt(missed / sum(float(wanted.delta(name).square().sum()) for name in wanted.factors))


@pytest.mark.parametrize("basis", ["frame", "extended", "learned"])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_stored_generator_loads_and_makes_close_adapters(tmp_path: Path, storage: Storage, basis: str) -> None:
    whole = generator(basis)
    save_generator(tmp_path, whole, storage, about=ABOUT)
    loaded, kept = load_generator(tmp_path), stored(whole, storage)
    texts = [numbers(5, HIDDEN, seed=seed) for seed in (3, 4)]
    made = [whole.generate(text, None) for text in texts]
    assert distance(made[1], made[0]) > 0.1  # or nothing would follow from what comes now
    bound = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.05}[storage]
    for text, wanted in zip(texts, made, strict=True):
        found = loaded.generate(text, None)
        assert distance(found, wanted) < bound
        assert storage == "fp32" or distance(found, wanted) > 1e-5  # it was rounded
    own, theirs = kept.tensors(), loaded.tensors()
    assert own.keys() == theirs.keys()
    assert [name for name in own if not torch.equal(own[name], theirs[name])] == []
    for seed in (None, 5):
        ours = kept.generate(texts[0], texts[1], seed=seed)
        read = loaded.generate(texts[0], texts[1], seed=seed)
        for name, item in ours.factors.items():
            assert torch.equal(item.lora_a, read.factors[name].lora_a), name
            assert torch.equal(item.lora_b, read.factors[name].lora_b), name
    assert loaded.manifest.key == "kept" and loaded.rank == whole.rank and loaded.frame == whole.frame


@pytest.mark.parametrize(
    "head",
    [
        *({"code_norm": True}, {"output_scale": True}, {"mean_adapter": True}, {"bounded": 0.5}),
        {"code_norm": True, "output_scale": True, "mean_adapter": True, "bounded": -3.5},
    ],
)
def test_a_generator_with_options_of_the_head_loads_and_makes_the_same_adapters(
    tmp_path: Path, head: dict[str, Any]
) -> None:
    whole, text = generator(**head), numbers(5, HIDDEN, seed=3)
    wanted, plain = whole.generate(text, None), generator().generate(text, None)
    assert distance(wanted, plain) > 1e-3
    for storage in STORAGES:
        save_generator(tmp_path, whole, storage, about=ABOUT)
        found, kept = load_generator(tmp_path).generate(text, None), stored(whole, storage).generate(text, None)
        assert all(torch.equal(found.delta(name), kept.delta(name)) for name in wanted.factors)
        assert distance(found, wanted) < {"fp32": 1e-5, "bf16": 0.02, "int8": 0.05}[storage]


def test_a_generator_of_a_version_without_these_options_loads(tmp_path: Path) -> None:
    whole, text = generator(), numbers(5, HIDDEN, seed=3)
    save_generator(tmp_path, whole, about=ABOUT)
    config = files.read_json(tmp_path / CONFIG)
    network = dict(files.as_object(config["network"]))
    for name in ("code_norm", "output_scale", "mean_adapter", "bounded"):
        assert network.pop(name) in (False, None)
    del config["seal"]  # which such a version wrote over what it knew
    files.write_json(tmp_path / CONFIG, config | {"network": network})
    found, wanted = load_generator(tmp_path).generate(text, None), whole.generate(text, None)
    assert all(torch.equal(found.delta(name), wanted.delta(name)) for name in wanted.factors)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_stored_again_does_not_change(tmp_path: Path, storage: Storage) -> None:
    first = stored(generator(), storage)
    save_generator(tmp_path, first, storage, about=ABOUT)
    found = load_generator(tmp_path).tensors()
    for name, item in first.tensors().items():
        tolerance = float(item.abs().max()) / 254 if storage == "int8" else 0.0
        assert float((found[name] - item).abs().max()) <= tolerance, name


def test_int8_takes_about_a_quarter_of_fp32(tmp_path: Path) -> None:
    whole = generator(hidden_dim=400)  # or the names of the tensors would count
    sizes = {}
    for storage in STORAGES:
        save_generator(tmp_path, whole, storage, about=ABOUT)
        sizes[storage] = (tmp_path / WEIGHTS).stat().st_size
    assert sizes["bf16"] == pytest.approx(sizes["fp32"] / 2, rel=0.05)
    assert sizes["int8"] == pytest.approx(sizes["fp32"] / 4, rel=0.06)


@pytest.mark.parametrize("basis", ["frame", "extended"])
def test_a_seeded_frame_is_not_stored(tmp_path: Path, basis: str) -> None:
    whole = generator(basis)
    save_generator(tmp_path, whole, about=ABOUT)
    tensors = load_file(tmp_path / WEIGHTS)
    bases = {name: item for name, item in tensors.items() if name.startswith("codec.")}
    assert files.read_json(tmp_path / CONFIG)["frame"] == {"seed": FRAME.seed, "width": FRAME.width}
    if basis == "frame":
        assert bases == {}
    else:  # the learned directions alone, and only beyond the frame's width
        assert {item.shape for name, item in bases.items() if ".left." in name} == {(64, 4)}
        assert {item.shape for name, item in bases.items() if ".right." in name} == {(4, 48)}
    loaded = load_generator(tmp_path)
    for side in ("left", "right"):
        pairs = zip(getattr(whole.codec, side), getattr(loaded.codec, side), strict=True)
        assert all(torch.equal(wanted, found) for wanted, found in pairs)
    text = numbers(4, HIDDEN, seed=9)
    found, wanted = loaded.generate(text, None), whole.generate(text, None)
    assert all(torch.equal(found.delta(name), wanted.delta(name)) for name in wanted.factors)


def test_the_encoder_is_not_stored_and_the_reader_is(tmp_path: Path) -> None:
    whole = generator()
    save_generator(tmp_path, whole, about=ABOUT)
    roots = {name.split(".")[1] for name in load_file(tmp_path / WEIGHTS) if name.startswith("model.")}
    assert "reader" in roots and roots.isdisjoint(whole.model.ENCODER)


@pytest.mark.parametrize("lost", ["model.enter.weight", "model.reader.queries", "condition.text.mean", "module_scale"])
def test_a_file_that_lacks_a_tensor_is_told(tmp_path: Path, lost: str) -> None:
    save_generator(tmp_path, generator(), "int8", about=ABOUT)
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors[lost]
    save_file(tensors, tmp_path / WEIGHTS)
    config = files.read_json(tmp_path / CONFIG)
    files.write_json(tmp_path / CONFIG, config | {"sha256": files.sha256_file(tmp_path / WEIGHTS)})
    with pytest.raises(CorruptFileError):
        load_generator(tmp_path)


def test_a_file_that_lacks_a_scale_is_told(tmp_path: Path) -> None:
    save_generator(tmp_path, generator(), "int8", about=ABOUT)
    tensors = load_file(tmp_path / WEIGHTS)
    (name, *_) = [name for name in tensors if name.endswith(SCALE)]
    del tensors[name]
    save_file(tensors, tmp_path / WEIGHTS)
    config = files.read_json(tmp_path / CONFIG)
    files.write_json(tmp_path / CONFIG, config | {"sha256": files.sha256_file(tmp_path / WEIGHTS)})
    with pytest.raises(CorruptFileError, match="scale"):
        load_generator(tmp_path)
