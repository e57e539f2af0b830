"""The prior of neighbours: p(z | c) as a mixture of one Gaussian for each training task, weighted by likeness.

A prior of the nearest experts generalises better than N(0, I) (SG-LoRA, arXiv 2509.10535), and a mixture over what was
seen in training is the prior that the evidence lower bound asks for (VampPrior, Tomczak & Welling 2018, arXiv
1705.07120). Here the tasks' Gaussians are learned. How alike two tasks are is measured by three cosines: that of the
pooled states of their texts, that of the pooled states of their demonstrations, and that of what the reader makes of
the support with what it makes of the training task's descriptions, as in prototypical networks (Snell et al. 2017,
arXiv 1703.05175). Each cosine has three learned scales, for supports of text, of demonstrations and of both.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from icmlora_cli.generator.conditions import SHOWN, TEXT, Support, pooled
from icmlora_cli.generator.reader import AttentionReader, MeanReader

SCALES = (10.0, 20.0, 20.0)  # the scales of the three cosines (text, demonstrations, reader) before training

Gaussian = tuple[torch.Tensor, torch.Tensor]
"""The mean and the log-variance of a diagonal Gaussian, each fp32 [B, latent]."""


class NeighbourPrior(nn.Module):
    """Attention of a condition over the training tasks, which gives the prior of a ``TokenCVAE``.

    Args:
        tasks: n, the number of training tasks that are remembered.
        hidden: how many numbers a hidden state has.
        reading: how many numbers the reader makes of a support.
        latent_dim: how many numbers z has.
        log_variance: the log-variance of each task's Gaussian before training.
    """

    text: torch.Tensor
    shown: torch.Tensor
    readings: torch.Tensor

    def __init__(self, tasks: int, hidden: int, reading: int, latent_dim: int, log_variance: float) -> None:
        """Make a Gaussian for each task; what is known of the tasks is zero until they are remembered."""
        super().__init__()
        self.hidden, self.reading = hidden, reading
        self.register_buffer("text", torch.zeros(tasks, hidden))
        self.register_buffer("shown", torch.zeros(tasks, hidden))
        self.register_buffer("readings", torch.zeros(tasks, reading))
        self.means = nn.Parameter(torch.randn(tasks, latent_dim))
        self.log_variances = nn.Parameter(torch.full((tasks, latent_dim), log_variance))
        self.scales = nn.Parameter(torch.tensor(SCALES).log().repeat(3, 1))

    @torch.no_grad()
    def remember_pooled(self, texts: Sequence[Support], shown: Sequence[Support | None]) -> None:
        """Store the pooled states of the tasks' descriptions and demonstrations.

        Args:
            texts: for each task, the supports of its descriptions as a batch.
            shown: for each task, the supports of its draws of demonstrations as a batch, or None if it has none.
        """
        for known, slot, supports in ((self.text, TEXT, texts), (self.shown, SHOWN, shown)):
            start = (slot - TEXT) * self.hidden
            for row, support in zip(known, supports, strict=True):
                row.copy_(
                    torch.zeros(self.hidden) if support is None else pooled(support).mean(0)[start:][: self.hidden]
                )

    @torch.no_grad()
    def remember_readings(self, texts: Sequence[Support], reader: MeanReader | AttentionReader) -> None:
        """Store what the reader makes of the tasks' descriptions, as a mean of unit vectors for each task."""
        read = reader(Support.stack(texts).to(self.readings.device))
        counts = [len(item.slots) for item in texts]
        units = nn.functional.normalize(read, dim=1).split(counts)
        self.readings.copy_(torch.stack([item.mean(0) for item in units]))

    def logits(self, c: torch.Tensor) -> torch.Tensor:
        """Return how alike each training task is to a condition, as logits [B, n].

        Args:
            c: the conditions, fp32 [B, reading + 2 * hidden + 2]: what the reader made of a support, then its pooled
                slots and their flags.
        """
        reading, text, shown, flags = c.split([self.reading, self.hidden, self.hidden, 2], dim=1)
        both = flags.prod(1, keepdim=True)
        kinds = torch.cat([flags - both, both], dim=1)  # (B, 3): text alone, demonstrations alone, both
        scales = kinds @ self.scales.exp()
        alike = torch.stack(
            [
                flags[:, :1] * _cosines(text, self.text),
                flags[:, 1:] * _cosines(shown, self.shown),
                nn.functional.normalize(reading, dim=1) @ nn.functional.normalize(self.readings, dim=1).T,
            ],
            dim=1,
        )  # (B, 3, n)
        return (scales[..., None] * alike).sum(1)

    def weights(self, c: torch.Tensor) -> torch.Tensor:
        """Return the weight of each training task in the mixture, [B, n]: the softmax of ``logits``."""
        return self.logits(c).softmax(1)

    def own(self, c: torch.Tensor, tasks: torch.Tensor) -> tuple[Gaussian, torch.Tensor]:
        """Return the Gaussians of the rows' own tasks, and the mean of -log of those tasks' weights, in nats.

        Args:
            c: the conditions as ``logits`` takes them, fp32 [B, reading + 2 * hidden + 2].
            tasks: the index of the training task of each row, int64 [B].
        """
        return (self.means[tasks], self.log_variances[tasks]), nn.functional.cross_entropy(self.logits(c), tasks)

    def mean_of_others(
        self, c: torch.Tensor, tasks: torch.Tensor, tokens: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted mean of the other tasks' cores, [B, modules, R, R].

        Args:
            c: the conditions as ``logits`` takes them, fp32 [B, reading + 2 * hidden + 2].
            tasks: the index of the training task that is left out of each row, int64 [B].
            tokens: the normalised cores of all training adapters, fp32 [adapters, modules, R, R].
            owners: the index of the task that each adapter belongs to, int64 [adapters].
        """
        left_out = torch.arange(len(self.text), device=c.device) == tasks[:, None]
        weights = self.logits(c).masked_fill(left_out, -math.inf).softmax(1)
        return torch.einsum("ba,amij->bmij", weights[:, owners] / owners.bincount()[owners], tokens)

    def forward(self, c: torch.Tensor) -> Gaussian:
        """Return the weighted mean of the tasks' Gaussians (means and log-variances), for c as ``logits`` takes it."""
        weights = self.weights(c)
        return weights @ self.means, weights @ self.log_variances

    def sample(self, c: torch.Tensor, rng: torch.Generator) -> Gaussian:
        """Return for each row the Gaussian of one task, drawn by its weight, on the CPU so that devices agree."""
        chosen = torch.multinomial(self.weights(c).cpu(), 1, generator=rng)[:, 0].to(c.device)
        return self.means[chosen], self.log_variances[chosen]


def _cosines(rows: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the cosines, [B, n], of rows with known rows, after standardisation over the known ones.

    Known rows that are all zero stand for what is not known; they have the cosine 0 and do not count in the statistics.
    """
    is_known = known.abs().amax(1) > 0
    if int(is_known.sum()) < 2:
        return nn.functional.normalize(rows, dim=1) @ nn.functional.normalize(known, dim=1).T
    mean, std = known[is_known].mean(0), known[is_known].std(0).clamp(min=1e-6)
    unit = nn.functional.normalize((known - mean) / std, dim=1) * is_known[:, None]
    return nn.functional.normalize((rows - mean) / std, dim=1) @ unit.T
