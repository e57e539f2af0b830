"""Readers, which turn a support into the condition c of a generator.

The reader ``mean`` takes the mean of each slot, as the paper pools hidden states, and learns nothing. In the reader
``attention`` learned queries attend over the states of all tokens, so that a single word can make the difference
(perceiver-style pooling, Jaegle et al. 2021, arXiv 2103.03206). Neither reader is given positions, since the base's
hidden states already depend on the order of the words.
"""

import torch
from torch import nn

from icmlora_cli.generator.conditions import EMPTY, Support, pooled

HEADS = 4  # attention heads in a block and in the pooling


class MeanReader(nn.Module):
    """The reader ``mean``: the mean of each slot's states and a flag for each slot, without parameters.

    Args:
        hidden: how many numbers a hidden state has.
    """

    def __init__(self, hidden: int) -> None:
        """Store how many numbers c has; there is nothing to learn."""
        super().__init__()
        self.size = 2 * hidden + 2

    def forward(self, support: Support) -> torch.Tensor:
        """Return the conditions c of a support, [B, size]."""
        return pooled(support)


class _Block(nn.Module):
    """A pre-norm transformer block over the tokens of a support."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = nn.MultiheadAttention(size, HEADS, batch_first=True)
        self.enter, self.leave = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        x = x + self.attention(h, h, h, key_padding_mask=absent, need_weights=False)[0]
        total: torch.Tensor = x + self.leave(nn.functional.gelu(self.enter(self.second(x))))
        return total


class AttentionReader(nn.Module):
    """The reader ``attention``: learned queries attend over the states of all tokens of both slots.

    Args:
        hidden: how many numbers a hidden state has.
        size: the width inside the reader, a multiple of 4.
        queries: how many learned queries there are.
        layers: how many transformer blocks the states pass before the queries attend to them.
        condition_dim: how many numbers c has.
    """

    def __init__(self, hidden: int, size: int, queries: int, layers: int, condition_dim: int) -> None:
        """Build the blocks and the learned queries."""
        super().__init__()
        self.size = condition_dim
        self.project = nn.Linear(hidden, size)
        self.slot = nn.Embedding(3, size)
        self.nothing = nn.Parameter(torch.zeros(size))  # an extra key, so that an empty support has one too
        self.blocks = nn.ModuleList(_Block(size) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.queries = nn.Parameter(torch.randn(queries, size) / size**0.5)
        self.pool = nn.MultiheadAttention(size, HEADS, batch_first=True)
        self.leave = nn.Sequential(nn.Linear(queries * size, condition_dim), nn.LayerNorm(condition_dim))

    def forward(self, support: Support) -> torch.Tensor:
        """Return the conditions c of a support, [B, condition_dim]."""
        count = support.slots.shape[0]
        x = self.project(support.states) + self.slot(support.slots)
        x = torch.cat([self.nothing.expand(count, 1, -1), x], dim=1)
        absent = torch.nn.functional.pad(support.slots == EMPTY, (1, 0))
        for block in self.blocks:
            x = block(x, absent)
        x = self.norm(x)
        queries = self.queries.expand(count, -1, -1)
        pooled_states, _ = self.pool(queries, x, x, key_padding_mask=absent, need_weights=False)  # (B, queries, size)
        c: torch.Tensor = self.leave(pooled_states.flatten(1))
        return c
