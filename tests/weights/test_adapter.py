"""Adapters as data: what is written is what PEFT reads, and what is broken is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.weights.adapter import WEIGHTS, Adapter, Factors, average, read_adapter, write_adapter
from icmlora_cli.weights.foreign.check import BaseModule, BaseShapes
from tests.random_lora import fitting_base


def make(seed: int = 0, rank: int = 3, *, alpha: float = 6.0) -> Adapter:
    rng = torch.Generator().manual_seed(seed)
    shapes = {"model.layers.0.self_attn.q_proj": (8, 6), "model.layers.1.self_attn.v_proj": (4, 6)}
    factors = {
        name: Factors(torch.randn(rank, inn, generator=rng), torch.randn(out, rank, generator=rng))
        for name, (out, inn) in shapes.items()
    }
    return Adapter("some/base", alpha, factors)


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    adapter = make()
    write_adapter(tmp_path, adapter, fitting_base(adapter))
    again = read_adapter(tmp_path)
    assert again.base_model == "some/base" and again.alpha == 6.0 and again.rank == 3
    for name, item in adapter.factors.items():
        assert torch.equal(again.factors[name].lora_a, item.lora_a)
        assert torch.equal(again.factors[name].lora_b, item.lora_b)


def test_scaling_is_alpha_over_rank_or_its_root() -> None:
    adapter = make(rank=4, alpha=8.0)
    name = next(iter(adapter.factors))
    assert adapter.scaling(name) == 2.0
    rs = Adapter("b", 8.0, adapter.factors, use_rslora=True)
    assert rs.scaling(name) == 4.0
    assert torch.allclose(rs.delta(name), 2 * adapter.delta(name))


def test_average_is_the_mean_of_the_deltas() -> None:
    first, second = make(0, rank=2), make(1, rank=3)
    soup = average([first, second])
    for name in first.factors:
        wanted = (first.delta(name) + second.delta(name)) / 2
        assert torch.allclose(soup.delta(name), wanted, atol=1e-5)


def test_average_of_one_is_that_one() -> None:
    only = make()
    for name in only.factors:
        assert torch.allclose(average([only]).delta(name), only.delta(name), atol=1e-6)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    adapter = make()
    write_adapter(tmp_path, adapter, fitting_base(adapter))
    data = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptFileError, match="not a readable safetensors"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("fault", ["nan", "lonely", "foreign"])
def test_broken_factors_are_refused(tmp_path: Path, fault: str) -> None:
    adapter = make()
    write_adapter(tmp_path, adapter, fitting_base(adapter))
    tensors = load_file(tmp_path / WEIGHTS)
    key = sorted(tensors)[0]
    if fault == "nan":
        tensors[key][0, 0] = float("nan")
    elif fault == "lonely":
        del tensors[key]
    else:
        tensors["something.else"] = torch.zeros(2, 2)
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(CorruptFileError):
        read_adapter(tmp_path)


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="adapter_config"):
        read_adapter(tmp_path / "nothing")


def test_dora_is_refused(tmp_path: Path) -> None:
    adapter = make()
    write_adapter(tmp_path, adapter, fitting_base(adapter))
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"use_dora": false', '"use_dora": true'))
    with pytest.raises(CorruptFileError, match="not a plain LoRA"):
        read_adapter(tmp_path)


def test_what_its_base_has_not_is_not_written(tmp_path: Path) -> None:
    adapter = make()
    base, (first, *_) = fitting_base(adapter), adapter.factors
    module = base.modules[first]
    for modules, match in (
        ({name: item for name, item in base.modules.items() if name != first}, "has no module"),
        (
            {**base.modules, first: BaseModule("linear", module.out_features, 7)},
            r"is \(8, 7\) in the base and",
        ),
        ({**base.modules, first: BaseModule("linear", 9, module.in_features)}, r"is \(9, 6\) in the base and"),
    ):
        with pytest.raises(CorruptFileError, match=match) as caught:
            write_adapter(tmp_path / "out", adapter, BaseShapes(modules, {}))
        assert caught.value.where == str(tmp_path / "out") and "--base" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_written(tmp_path: Path, value: float) -> None:
    factors = {"q_proj": Factors(torch.full((2, 4), value), torch.ones(4, 2))}
    large = Adapter("base", value, {"q_proj": Factors(torch.ones(2, 4), torch.ones(4, 2))})
    for adapter in (Adapter("base", 2.0, factors), large):
        with pytest.raises(CorruptFileError, match="not finite"):
            write_adapter(tmp_path / "out", adapter, fitting_base(adapter))
    assert not (tmp_path / "out").exists()
