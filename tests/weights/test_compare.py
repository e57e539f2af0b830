"""Comparing adapters through their factors equals comparing the matrices."""

import pytest
import torch

from icmlora_cli.weights.adapter import Adapter, Factors, average, weighted_sum
from icmlora_cli.weights.compare import compare, gram, norm, principal_map, spread


def adapter(seed: int, rank: int = 2, modules: tuple[str, ...] = ("l.0.q_proj", "l.0.v_proj", "l.1.q_proj")) -> Adapter:
    rng = torch.Generator().manual_seed(seed)
    factors = {
        name: Factors(torch.randn(rank, 6, generator=rng), torch.randn(5, rank, generator=rng)) for name in modules
    }
    return Adapter("base", 4.0, factors)


def dense(item: Adapter, *modules: str) -> torch.Tensor:
    return torch.cat([(item.delta(name) if name in item.factors else torch.zeros(5, 6)).flatten() for name in modules])


def test_compare_is_what_the_matrices_say() -> None:
    one, two = adapter(0), adapter(1, rank=3)
    found = compare(one, two)
    for names, closeness in (
        (("l.0.q_proj", "l.0.v_proj", "l.1.q_proj"), found.all),
        (("l.0.q_proj", "l.1.q_proj"), found.by_type["q_proj"]),
        (("l.1.q_proj",), found.by_layer[1]),
    ):
        first, second = dense(one, *names), dense(two, *names)
        assert closeness.error == pytest.approx(float((first - second).norm() / second.norm()), rel=1e-5)
        cosine = float(torch.nn.functional.cosine_similarity(first, second, dim=0))
        assert closeness.cosine == pytest.approx(cosine, abs=1e-6)
    assert compare(one, one).all.error == pytest.approx(0.0, abs=1e-7)
    assert norm(one) == pytest.approx(float(dense(one, *one.factors).norm()), rel=1e-6)


def test_spread_is_what_the_matrices_say() -> None:
    some = [adapter(seed, rank=1 + seed) for seed in range(3)]
    flat = [dense(item, *item.factors) for item in some]
    apart = [float((flat[one] - flat[two]).norm()) for one, two in ((0, 1), (0, 2), (1, 2))]
    size = float(torch.stack([item.square().sum() for item in flat]).mean().sqrt())
    assert spread(some) == pytest.approx(sum(apart) / 3 / size, rel=1e-5)
    assert spread([some[0], some[0]]) == pytest.approx(0.0, abs=1e-6)


def test_a_module_that_one_lacks_is_zero_there() -> None:
    one, two = adapter(0, modules=("l.0.q_proj",)), adapter(0)
    names = tuple(two.factors)
    wanted = float((dense(one, *names) - dense(two, *names)).norm() / dense(two, *names).norm())
    assert compare(one, two).all.error == pytest.approx(wanted, rel=1e-5)


def test_gram_holds_all_inner_products() -> None:
    items = [adapter(0), adapter(1, rank=3), adapter(2, modules=("l.0.q_proj",))]
    rows = torch.stack([dense(item, *items[0].factors) for item in items]).double()
    assert torch.allclose(gram(items), rows @ rows.T, atol=1e-4)


def test_the_map_keeps_distances_of_points_in_a_plane() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    coordinates, explained = principal_map(points @ points.T)
    assert torch.allclose(torch.cdist(coordinates, coordinates), torch.cdist(points, points), atol=1e-9)
    assert explained[0] > explained[1] and sum(explained) == pytest.approx(1.0)
    alone, _ = principal_map(torch.ones(1, 1))
    assert alone.tolist() == [[0.0, 0.0]]


def test_weighted_sums_are_exact() -> None:
    items = [adapter(0), adapter(1, rank=3), adapter(2, modules=("l.0.q_proj",))]
    summed = weighted_sum(items, [0.5, -2.0, 0.25])
    names = tuple(items[0].factors)
    wanted = sum(weight * dense(item, *names) for item, weight in zip(items, (0.5, -2.0, 0.25), strict=True))
    assert isinstance(wanted, torch.Tensor) and torch.allclose(dense(summed, *names), wanted, atol=1e-5)
    assert {factors.rank for factors in summed.factors.values()} == {summed.rank}
    assert torch.allclose(dense(average(items[:1]), *names), dense(items[0], *names), atol=1e-6)
    with pytest.raises(ValueError, match="no adapters"):
        average([])
