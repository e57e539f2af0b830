"""Comparing adapters by delta-W, through their factors: no [out, in] matrix is made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.layout import layers_of


@dataclass(frozen=True)
class Closeness:
    """How near an adapter is to another.

    Args:
        error: ||delta-W - wanted|| / ||wanted||, Frobenius norms.
        cosine: The cosine of the two as vectors; 0 where one is zero.
    """

    error: float
    cosine: float


@dataclass(frozen=True)
class AdapterComparison:
    """Closeness over all modules, by the modules' last name (``q_proj``), and by layer."""

    all: Closeness
    by_type: Mapping[str, Closeness]
    by_layer: Mapping[int, Closeness]


def inner(first: Adapter, second: Adapter, module: str) -> float:
    """Return the Frobenius inner product of two adapters' delta-W of a module; 0 where one lacks it."""
    if module not in first.factors or module not in second.factors:
        return 0.0
    one, two = first.factors[module], second.factors[module]
    left = one.lora_b.double().T @ two.lora_b.double()  # (r1, r2)
    right = one.lora_a.double() @ two.lora_a.double().T  # (r1, r2)
    return first.scaling(module) * second.scaling(module) * float((left * right).sum())


def norm(adapter: Adapter) -> float:
    """Return the Frobenius norm of an adapter's delta-W over all its modules."""
    return math.sqrt(sum(inner(adapter, adapter, module) for module in adapter.factors))


def closeness(own: float, both: float, wanted: float) -> Closeness:
    """Return the closeness of two adapters from their inner products: with itself, with the other, the other's own."""
    missed = max(0.0, own - 2 * both + wanted)
    error = math.sqrt(missed / wanted) if wanted > 0 else (0.0 if missed == 0 else math.inf)
    cosine = both / math.sqrt(own * wanted) if own > 0 and wanted > 0 else 0.0
    return Closeness(error, max(-1.0, min(1.0, cosine)))


def _summed(products: Sequence[tuple[float, float, float]]) -> Closeness:
    own, both, wanted = (sum(column) for column in zip(*products, strict=True))
    return closeness(own, both, wanted)


def compare(adapter: Adapter, wanted: Adapter) -> AdapterComparison:
    """Compare an adapter with the one that was wanted; a module that one of them lacks is zero there.

    Args:
        adapter: what there is.
        wanted: the harvested adapter.
    """
    products: dict[str, tuple[float, float, float]] = {}
    for module in dict.fromkeys([*wanted.factors, *adapter.factors]):
        own, both = inner(adapter, adapter, module), inner(adapter, wanted, module)
        products[module] = (own, both, inner(wanted, wanted, module))
    types: dict[str, list[tuple[float, float, float]]] = {}
    layers: dict[int, list[tuple[float, float, float]]] = {}
    places = layers_of(products)
    for module, values in products.items():
        types.setdefault(module.rsplit(".", 1)[-1], []).append(values)
        layer = places[module]
        if layer is not None:
            layers.setdefault(layer, []).append(values)
    return AdapterComparison(
        all=_summed(list(products.values())),
        by_type={name: _summed(values) for name, values in sorted(types.items())},
        by_layer={index: _summed(values) for index, values in sorted(layers.items())},
    )


def gram(adapters: Sequence[Adapter]) -> torch.Tensor:
    """Return all inner products of the adapters' delta-W, summed over modules, fp64 [n, n]."""
    total = torch.zeros(len(adapters), len(adapters), dtype=torch.float64)
    for module in dict.fromkeys(module for adapter in adapters for module in adapter.factors):
        owners, rows, columns = [], [], []
        for index, adapter in enumerate(adapters):
            if module in adapter.factors:
                item = adapter.factors[module]
                owners += [index] * item.rank
                rows.append(item.lora_a.double())
                columns.append(item.lora_b.double() * adapter.scaling(module))
        a, b = torch.cat(rows), torch.cat(columns, dim=1)  # (sum of r, in), (out, sum of r)
        products = (a @ a.T) * (b.T @ b)
        member = torch.nn.functional.one_hot(torch.tensor(owners), len(adapters)).double()  # (sum of r, n)
        total += member.T @ products @ member
    return total


def spread(adapters: Sequence[Adapter]) -> float:
    """Return how far apart adapters are: the mean distance of two delta-W over their root mean square norm.

    0 if all are equal; independent directions of equal norm are sqrt(2) apart.

    Args:
        adapters: two or more of one base.
    """
    products = gram(adapters)
    own = products.diagonal()
    apart = (own[:, None] + own[None] - 2 * products).clamp(min=0).sqrt()
    count, size = len(adapters), float(own.mean().clamp(min=0).sqrt())
    return float(apart.sum()) / (count * (count - 1)) / size if size else 0.0


def principal_map(products: torch.Tensor) -> tuple[torch.Tensor, tuple[float, float]]:
    """Return the first two principal coordinates of points whose inner products are given (kernel PCA).

    Args:
        products: symmetric [n, n], n >= 1.

    Returns:
        Coordinates fp64 [n, 2], each axis signed so that its largest entry is positive, and the share of the
        variance along each.
    """
    count = products.shape[0]
    centring = torch.eye(count, dtype=torch.float64) - 1.0 / count
    values, vectors = torch.linalg.eigh(centring @ products.double() @ centring)
    values, vectors = values.flip(0).clamp(min=0.0), vectors.flip(1)
    coordinates = torch.zeros(count, 2, dtype=torch.float64)
    shares = [0.0, 0.0]
    total = float(values.sum())
    for axis in range(min(2, count)):
        column = vectors[:, axis] * values[axis].sqrt()
        sign = 1.0 if float(column[column.abs().argmax()]) >= 0 else -1.0
        coordinates[:, axis] = sign * column
        shares[axis] = float(values[axis]) / total if total > 0 else 0.0
    return coordinates, (shares[0], shares[1])
