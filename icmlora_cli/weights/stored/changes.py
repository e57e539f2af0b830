"""What adapters do to the tensors of their base as they are stored, block by block.

A change of a tensor yields new blocks of rows for the old ones, see ``shards.Change``; none needs the whole tensor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.weights.adapter import Adapter, Factors, check_fits
from icmlora_cli.weights.foreign.check import BaseShapes
from icmlora_cli.weights.stored.shards import Blocks, Change

Old = Callable[[], Blocks]


@dataclass(frozen=True, eq=False)
class LowRank:
    """Adds ``left @ right``.

    Args:
        left: [rows, r], fp32.
        right: [r, columns], fp32.
    """

    left: torch.Tensor
    right: torch.Tensor

    def __call__(self, old: Old) -> Blocks:
        """Yield the changed blocks."""
        for rows, weight in old():
            kind = weight.dtype  # fp32, or fp64 of a base that is in it
            yield rows, torch.addmm(weight, self.left[rows].to(kind), self.right.to(kind))

    def scaled(self, weight: float) -> "LowRank":
        """Return the change that adds ``weight`` times as much."""
        return LowRank(self.left * weight, self.right)


@dataclass(frozen=True, eq=False)
class Added:
    """Adds a vector, fp32, to a bias."""

    vector: torch.Tensor

    def __call__(self, old: Old) -> Blocks:
        """Yield the changed blocks."""
        for rows, bias in old():
            yield rows, bias + self.vector[rows]

    def scaled(self, weight: float) -> "Added":
        """Return the change that adds ``weight`` times as much."""
        return Added(self.vector * weight)


@dataclass(frozen=True, eq=False)
class Replaced:
    """Puts a tensor of the same shape in the place of the base's."""

    tensor: torch.Tensor

    def __call__(self, old: Old) -> Blocks:
        """Yield the changed blocks."""
        for rows, weight in old():
            yield rows, self.tensor[rows].to(weight.dtype)


@dataclass(frozen=True, eq=False)
class Rescaled:
    """DoRA: adds ``left @ right``, then gives each row (or column) of the sum the norm ``magnitude``.

    Source: Liu et al., 2024, https://huggingface.co/papers/2402.09353, eq. 5.

    Args:
        low_rank: the sum's second part.
        magnitude: [rows], or [columns], fp32.
        by_row: it is of the rows; a layer that keeps its weight as [in, out] has it of the columns.
    """

    low_rank: LowRank
    magnitude: torch.Tensor
    by_row: bool

    def __call__(self, old: Old) -> Blocks:
        """Yield the changed blocks; by column the old ones are read twice, first for the norms."""
        if self.by_row:
            for rows, turned in self.low_rank(old):
                yield rows, (self.magnitude[rows] / torch.linalg.norm(turned, dim=1))[:, None] * turned
            return
        squares = torch.zeros(len(self.magnitude), dtype=torch.float64)
        for _, turned in self.low_rank(old):
            squares += turned.square().sum(0, dtype=torch.float64)
        factor = self.magnitude / squares.sqrt().float()
        for rows, turned in self.low_rank(old):
            yield rows, factor * turned


@dataclass(frozen=True)
class OfExpert:
    """A change of one expert's matrix, which is a part of a tensor [experts, rows, columns].

    Args:
        expert: The index of the expert.
        first: The first of its rows.
        rows: How many rows it has.
        change: What is done to the matrix.
    """

    expert: int
    first: int
    rows: int
    change: Change


@dataclass(frozen=True, eq=False)
class OfExperts:
    """Changes the matrices of single experts in a tensor of all of them."""

    parts: tuple[OfExpert, ...]

    def __call__(self, old: Old) -> Blocks:
        """Yield the changed blocks, each of one or more whole experts."""
        for rows, weights in old():
            for part in self.parts:
                if rows.start <= part.expert < rows.stop:
                    matrix = weights[part.expert - rows.start, part.first : part.first + part.rows]
                    ((_, changed),) = part.change(_whole(matrix))
                    matrix.copy_(changed)
            yield rows, weights


def _whole(matrix: torch.Tensor) -> Old:
    """Return what gives a matrix as a single block."""
    return lambda: iter([(slice(0, len(matrix)), matrix)])


@dataclass(frozen=True, eq=False)
class Chain:
    """Does one change after the other."""

    steps: tuple[Change, ...]

    def __call__(self, old: Old) -> Blocks:
        """Yield the changed blocks."""
        if not self.steps:
            return old()
        *before, last = self.steps
        return last(lambda: Chain(tuple(before))(old))


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """Adds the differences that several changes make to the old tensor, each times its weight."""

    parts: tuple[tuple[Change, float], ...]

    def __call__(self, old: Old) -> Blocks:
        """Yield the changed blocks."""
        changed = [change(old) for change, _ in self.parts]
        for (rows, weight), *blocks in zip(old(), *changed, strict=True):
            total = weight.clone()
            for (_, block), (_, share) in zip(blocks, self.parts, strict=True):
                total += share * (block - weight)
            yield rows, total


Steps = Mapping[str, Sequence[Change]]
"""Parameter of the base to what one adapter does to it, in order."""


def combined(adapters: Sequence[tuple[Steps, float]]) -> dict[str, Change]:
    """Return what several adapters, each with a weight, do together to each parameter.

    Args:
        adapters: their steps and weights; with 1, an adapter does just what it does alone.
    """
    found: dict[str, Change] = {}
    for parameter in dict.fromkeys(name for steps, _ in adapters for name in steps):
        parts = [(tuple(steps[parameter]), weight) for steps, weight in adapters if parameter in steps]
        found[parameter] = _together(parts)
    return found


def _together(parts: Sequence[tuple[tuple[Change, ...], float]]) -> Change:
    if len(parts) == 1 and parts[0][1] == 1.0:
        return Chain(parts[0][0])
    sums: list[Change] = []
    for steps, weight in parts:
        sums += [step.scaled(weight) for step in steps if isinstance(step, (LowRank, Added))]
    if len(sums) == sum(len(steps) for steps, _ in parts):
        return Chain(tuple(sums))
    return WeightedSum(tuple((Chain(steps), weight) for steps, weight in parts))


def same(one: object, two: object) -> bool:
    """Tell whether two changes do the same, by their very numbers."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.shape == two.shape and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, tuple) and isinstance(two, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if type(one) is not type(two):
        return False
    if isinstance(one, (LowRank, Added, Replaced, Rescaled, Chain, WeightedSum)):
        return all(same(vars(one)[name], vars(two)[name]) for name in vars(one))
    return one == two


def low_rank(pair: Factors, scaling: float, kind: str) -> LowRank:
    """Return the change that a module's factors make to its weight as it is stored.

    Args:
        pair: lora_A [r, in] and lora_B [out, r].
        scaling: what their product is multiplied by.
        kind: The kind of the module: ``linear`` keeps [out, in]; ``conv1d`` and ``embedding`` [in, out].
    """
    first, second = pair.lora_b.float(), pair.lora_a.float()
    if kind != "linear":
        first, second = second.T, first.T
    return LowRank(scaling * first, second)


def steps_of(adapter: Adapter, base: BaseShapes) -> Steps:
    """Return what a plain LoRA does to its base.

    Raises:
        CorruptFileError: if the base lacks a module, or has it in another shape.
    """
    check_fits(adapter, base)
    return {
        f"{name}.weight": [low_rank(pair, adapter.scaling(name), base.modules[name].kind)]
        for name, pair in adapter.factors.items()
    }
