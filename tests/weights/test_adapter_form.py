"""Rank, number format and scale of an adapter, against the dense delta-W."""

import pytest
import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.adapter_form import SERVED_RANKS, cast, leading, scaled, servable
from icmlora_cli.weights.codec import fit_codec

NAME = "model.layers.0.self_attn.q_proj"


def made(rank: int = 6, *, size: float = 1.0) -> Adapter:
    """Return an adapter as a codec decodes it."""
    rng = torch.Generator().manual_seed(0)
    pair = Factors(torch.randn(rank, 20, generator=rng), size * torch.randn(12, rank, generator=rng))
    adapter = Adapter("base", 2.0 * rank, {NAME: pair})
    codec = fit_codec([adapter], energy=1.0)
    return codec.decode(codec.encode(adapter))


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_leading_is_the_nearest_of_its_rank(rank: int) -> None:
    adapter = made()
    u, s, vh = torch.linalg.svd(adapter.delta(NAME))
    wanted = u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]
    kept = leading(adapter, rank)
    assert kept.rank == rank and torch.allclose(kept.delta(NAME), wanted, atol=1e-4)


@pytest.mark.parametrize("rslora", [False, True])
def test_scaling_stays_as_it_is(rslora: bool) -> None:
    plain = made()
    adapter = Adapter("base", 5.0, plain.factors, use_rslora=rslora, alphas={NAME: 7.0})
    assert leading(adapter, 2).scaling(NAME) == pytest.approx(adapter.scaling(NAME))
    assert torch.allclose(scaled(adapter, -0.3).delta(NAME), -0.3 * adapter.delta(NAME), atol=1e-5)
    assert scaled(adapter, -0.3).factors is adapter.factors


def test_numbers_that_do_not_fit_are_told() -> None:
    half = cast(made(), "fp16")
    assert half.factors[NAME].lora_a.dtype == torch.float16
    assert torch.allclose(half.delta(NAME), made().delta(NAME), atol=0.1)
    with pytest.raises(UsageError, match="too large for fp16"):
        cast(made(size=1e12), "fp16")
    assert cast(made(size=1e12), "bf16").factors[NAME].lora_b.dtype == torch.bfloat16


@pytest.mark.parametrize(("rank", "served"), [(1, 1), (2, 8), (8, 8), (9, 16), (300, 320)])
@pytest.mark.parametrize("rslora", [False, True])
def test_a_servable_adapter_is_the_same_in_the_plainest_form(rank: int, served: int, rslora: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    ranks = {NAME: rank, f"{NAME}.other": max(1, rank - 1)}
    factors = {
        name: Factors(torch.randn(own, 20, generator=rng), torch.randn(12, own, generator=rng))
        for name, own in ranks.items()
    }
    adapter = Adapter("base", 5.0, factors, use_rslora=rslora, alphas={NAME: 7.0})
    plain = servable(adapter)
    assert served in SERVED_RANKS and {item.rank for item in plain.factors.values()} == {served}
    assert not plain.use_rslora and not plain.alphas and plain.alpha == served
    for name in ranks:
        assert torch.allclose(plain.delta(name), adapter.delta(name), rtol=1e-4, atol=1e-4)
        assert not plain.factors[name].lora_a[ranks[name] :].any()


def test_a_rank_that_no_server_takes_is_refused() -> None:
    with pytest.raises(UsageError, match="rank 513"):
        servable(Adapter("base", 1.0, {NAME: Factors(torch.zeros(513, 4), torch.zeros(4, 513))}))


def test_more_than_is_there_is_all_of_it() -> None:
    adapter = made()
    kept = leading(adapter, 9)
    assert kept.rank == adapter.rank and torch.allclose(kept.delta(NAME), adapter.delta(NAME))
