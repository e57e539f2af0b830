"""The codec: exact where the basis is wide enough, the best approximation where it is not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.codec import Codec, energy_kept, fit_codec, relative_error

SHAPES = {
    "model.layers.0.self_attn.q_proj": (12, 10),
    "model.layers.0.self_attn.v_proj": (5, 10),
    "model.layers.1.self_attn.q_proj": (12, 10),
}


def make(seed: int, rank: int, alpha: float = 4.0) -> Adapter:
    rng = torch.Generator().manual_seed(seed)
    factors = {
        name: Factors(torch.randn(rank, inn, generator=rng), torch.randn(out, rank, generator=rng))
        for name, (out, inn) in SHAPES.items()
    }
    return Adapter("some/base", alpha, factors)


def without(adapter: Adapter, modules: int) -> Adapter:
    """Return an adapter without its first modules; at least one is left."""
    kept = dict(list(adapter.factors.items())[min(modules, len(SHAPES) - 1) :])
    return Adapter(adapter.base_model, adapter.alpha, kept)


@settings(deadline=None, max_examples=25)
@given(ranks=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_a_wide_basis_is_exact_for_any_ranks(ranks: list[int], seed: int) -> None:
    adapters = [make(seed + index, rank) for index, rank in enumerate(ranks)]
    codec = fit_codec(adapters, energy=1.0, max_width=12)
    for adapter in adapters:
        decoded = codec.decode(codec.encode(adapter))
        for name in SHAPES:
            assert torch.allclose(decoded.delta(name), adapter.delta(name), atol=1e-4)
        assert relative_error(codec, adapter) < 1e-3


def test_error_of_cores_is_error_of_delta_w() -> None:
    codec = fit_codec([make(0, 2), make(1, 2)], energy=1.0, max_width=8)
    tokens = codec.encode(make(0, 2))
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(3)) * codec.mask()
    first, second = codec.decode(tokens), codec.decode(tokens + noise)
    missed = sum(float((first.delta(n) - second.delta(n)).square().sum()) for n in SHAPES)
    assert missed == pytest.approx(float(noise.square().sum()), rel=1e-4)


def test_a_narrow_basis_reports_what_it_loses() -> None:
    adapters = [make(seed, 3) for seed in range(4)]
    codec = fit_codec(adapters, max_width=3)
    assert codec.width == 3
    adapter = adapters[0]
    decoded = codec.decode(codec.encode(adapter))
    missed = sum(float((decoded.delta(n) - adapter.delta(n)).square().sum()) for n in SHAPES)
    total = sum(float(adapter.delta(n).square().sum()) for n in SHAPES)
    assert relative_error(codec, adapter) == pytest.approx((missed / total) ** 0.5, rel=1e-3)


def test_truncation_keeps_the_leading_directions() -> None:
    adapter = make(0, 2)
    codec = fit_codec([adapter, make(1, 3)], energy=1.0, max_width=12)
    small = codec.decode(codec.encode(adapter), rank=2)
    assert small.rank == 2
    for name in SHAPES:
        assert torch.allclose(small.delta(name), adapter.delta(name), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    kinds=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=4),
    width=st.integers(1, 14),
    seed=st.integers(0, 1000),
)
def test_truncating_the_widest_is_fitting_at_that_width(kinds: list[tuple[int, int]], width: int, seed: int) -> None:
    """Mixed ranks, and adapters that lack modules."""
    adapters = [without(make(seed + index, rank), lacks) for index, (rank, lacks) in enumerate(kinds)]
    widest = fit_codec(adapters, energy=1.0, max_width=14)
    cut, fitted = widest.truncated(width), fit_codec(adapters, energy=1.0, max_width=width)
    assert cut.width == fitted.width and cut.layout == fitted.layout
    for ours, theirs in zip((*cut.left, *cut.right), (*fitted.left, *fitted.right), strict=True):
        assert torch.equal(ours, theirs)
    for adapter in adapters:
        kept = energy_kept(cut, adapter)
        assert kept == pytest.approx(1 - relative_error(cut, adapter) ** 2, abs=1e-5)
        assert kept <= energy_kept(widest, adapter) + 1e-6
        assert energy_kept(widest, adapter) == pytest.approx(1.0, abs=1e-5)


def test_nothing_is_lost_of_an_adapter_of_zeros() -> None:
    other = make(0, 2)
    nothing = Adapter("some/base", 4.0, {name: Factors(0 * f.lora_a, f.lora_b) for name, f in other.factors.items()})
    assert energy_kept(fit_codec([nothing, other], max_width=1), nothing) == 1.0


def test_partial_modules_encode_as_zero() -> None:
    whole = make(0, 2)
    name = "model.layers.0.self_attn.q_proj"
    part = Adapter("some/base", 4.0, {name: make(1, 2).factors[name]})
    codec = fit_codec([whole, part], energy=1.0, max_width=12)
    tokens = codec.encode(part)
    used = [bool(tokens[index].any()) for index in range(len(codec.layout.modules))]
    assert used == [item.name == name for item in codec.layout.modules]


def test_saved_and_loaded_it_is_the_same() -> None:
    codec = fit_codec([make(0, 2), make(1, 2)])
    again = Codec.from_tensors(codec.tensors(), codec.layout, codec.width, codec.base_model)
    assert torch.equal(again.encode(make(0, 2)), codec.encode(make(0, 2)))


def test_another_bases_adapter_is_refused() -> None:
    codec = fit_codec([make(0, 2)])
    strange = Adapter("other", 4.0, {"model.layers.0.self_attn.q_proj": Factors(torch.ones(2, 7), torch.ones(12, 2))})
    with pytest.raises(CorruptFileError, match="another shape"):
        codec.encode(strange)
    unknown = Adapter("other", 4.0, {"h.0.attn": Factors(torch.ones(2, 7), torch.ones(12, 2))})
    with pytest.raises(CorruptFileError, match="does not know"):
        codec.encode(unknown)
    with pytest.raises(CorruptFileError, match="two shapes"):
        fit_codec([make(0, 2), strange])
