"""The controls that know nothing are what they say."""

import math

import pytest
import torch

from icmlora_cli.methods.controls import NoiseMethod
from icmlora_cli.methods.method import TaskContext
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.compare import inner


class Shelf:
    """A library of one adapter whose modules differ in rank."""

    def __init__(self) -> None:
        ranks = {"model.layers.0.q_proj": 8, "model.layers.0.v_proj": 2}
        factors = {name: Factors(torch.randn(rank, 32), torch.randn(16, rank)) for name, rank in ranks.items()}
        self.adapter = Adapter("base", 16.0, factors)

    def adapters(self) -> tuple[Adapter, ...]:
        return (self.adapter,)


class Named:
    name = "any"


def test_noise_has_the_norm_of_each_module() -> None:
    shelf = Shelf()
    made = NoiseMethod(shelf, 0).serve(TaskContext(Named(), ())).adapter  # type: ignore[arg-type]
    assert made is not None
    for name in made.factors:
        wanted = math.sqrt(inner(shelf.adapter, shelf.adapter, name))
        assert math.sqrt(inner(made, made, name)) == pytest.approx(wanted, rel=1e-4)
