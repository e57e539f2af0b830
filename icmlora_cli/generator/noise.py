"""Random numbers of a batch, drawn on the CPU so that devices agree; a part of a batch gets those of its rows.

A batch that does not fit into memory is trained on in parts. Each of them draws what the whole batch would have drawn,
from the same state of the random number generator, and takes its rows of it, so that the noise is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class RowsRng:
    """A random number generator of some rows of a batch.

    Args:
        rng: the random number generator of the whole batch, in the state in which the batch begins to draw.
        rows: which rows of the batch these are.
        count: how many rows the whole batch has.
    """

    rng: torch.Generator
    rows: slice
    count: int


Rng = torch.Generator | RowsRng
"""The random number generator of a whole batch, or of some of its rows."""


class AtOnce(Protocol):
    """Runs something on as many rows at once as memory suffices for."""

    def __call__(self, count: int, run: Callable[[int], T]) -> T:
        """Return what ``run`` returns.

        Args:
            count: how many rows there are.
            run: called with the number of rows that a pass may have; called again, with a smaller one and from the
                beginning, if memory did not suffice.
        """


def all_at_once(count: int, run: Callable[[int], T]) -> T:
    """Return what ``run`` returns of all rows at once, whether or not memory suffices."""
    return run(count)


def parts_of(count: int, size: int) -> list[slice]:
    """Return the rows of each part of a batch of ``count`` rows; a part has ``size`` rows at most."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def normal(shape: Sequence[int], rng: Rng, device: torch.device, *, repeats: int = 1) -> torch.Tensor:
    """Return numbers of N(0, 1), fp32 [rows, ...].

    Args:
        shape: the shape of what the given rows need; with repeats, ``repeats`` times as many rows as the batch has.
        rng: the random number generator from which they are drawn.
        device: where they are to be.
        repeats: how many times the batch is repeated, as by ``Tensor.repeat``.
    """
    if isinstance(rng, torch.Generator):
        return torch.randn(tuple(shape), generator=rng).to(device)
    drawn = torch.randn((rng.count * repeats, *shape[1:]), generator=rng.rng)
    return _rows(drawn, rng, repeats).to(device)


def integers(high: int, count: int, rng: Rng, device: torch.device, *, repeats: int = 1) -> torch.Tensor:
    """Return whole numbers from 0 to high - 1, int64 [count]; for the other arguments see ``normal``."""
    if isinstance(rng, torch.Generator):
        return torch.randint(high, (count,), generator=rng).to(device)
    return _rows(torch.randint(high, (rng.count * repeats,), generator=rng.rng), rng, repeats).to(device)


def _rows(drawn: torch.Tensor, rng: RowsRng, repeats: int) -> torch.Tensor:
    """Return the given rows of each repetition of what was drawn for the whole batch."""
    rows: torch.Tensor = drawn.unflatten(0, (repeats, rng.count))[:, rng.rows].flatten(0, 1)
    return rows
