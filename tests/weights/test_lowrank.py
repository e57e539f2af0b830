"""Low-rank fits and spectra, against the whole SVD."""

import pytest
import torch

from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.lowrank import effective_rank, fitted, singular_values


def test_a_fit_is_the_best_there_is() -> None:
    matrix = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(matrix)
    for rank in (1, 4, 9, 40):
        pair, error = fitted(matrix, rank)
        best = float(values[rank:].norm() / values.norm())
        assert pair.rank == min(rank, 9) and error == pytest.approx(best, abs=1e-6)
        found = float((pair.lora_b @ pair.lora_a - matrix).norm() / matrix.norm())
        assert error == pytest.approx(found, abs=1e-5)
        assert torch.allclose(pair.lora_a.norm(), pair.lora_b.norm(), rtol=1e-4)
    assert fitted(torch.zeros(4, 4), 2)[1] == 0.0


def test_singular_values_are_those_of_delta_w() -> None:
    rng = torch.Generator().manual_seed(1)
    for rank in (2, 9):  # narrower and wider than the module
        pair = Factors(torch.randn(rank, 6, generator=rng), torch.randn(5, rank, generator=rng))
        adapter = Adapter("b", 8.0, {"m": pair})
        wanted = torch.linalg.svdvals(adapter.delta("m").double())[: min(rank, 5)]
        assert torch.allclose(singular_values(adapter, "m")[: len(wanted)], wanted, atol=1e-5)


def test_effective_rank_counts_equal_directions() -> None:
    assert effective_rank(torch.ones(7)) == pytest.approx(7.0)
    assert effective_rank(torch.tensor([3.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert 1 < effective_rank(torch.tensor([3.0, 1.0, 0.1])) < 3
    assert effective_rank(torch.zeros(3)) == 0.0
