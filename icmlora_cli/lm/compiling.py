"""``torch.compile`` for passes: batches are padded to a few sizes, for each of which the model is compiled once."""

from typing import cast

import torch

LEAST = 16  # tokens of the smallest batch


def bucket(tokens: int) -> int:
    """Return the tokens of the smallest batch that holds rows of so many: a power of two, at least 16."""
    return max(LEAST, 1 << (tokens - 1).bit_length())


def compiled(model: torch.nn.Module, *, on: bool) -> torch.nn.Module:
    """Return a model that is compiled at its first pass of each shape, if ``on`` is set, or else the model itself."""
    if not on:
        return model
    return cast(torch.nn.Module, torch.compile(model, dynamic=False))
