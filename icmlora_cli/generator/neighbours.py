"""p(z | c) from the training tasks that are alike: attention over one Gaussian of each.

A prior of the nearest experts generalises better than N(0, I) (SG-LoRA, arXiv 2509.10535), and a mixture over what was
seen in training is the prior that the evidence lower bound asks for (VampPrior, Tomczak & Welling 2018, arXiv
1705.07120). Here the experts' Gaussians are learned. Alike are tasks by three cosines: of the pooled states of either
slot, and of what the reader makes of a support with what it makes of a task's descriptions, as in prototypical networks
(Snell et al. 2017, arXiv 1703.05175). Each has a learned scale for supports of text, of demonstrations and of both.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from icmlora_cli.generator.conditions import SHOWN, TEXT, Support, pooled
from icmlora_cli.generator.reader import AttentionReader, MeanReader

SCALES = (10.0, 20.0, 20.0)  # of the cosines of text, of demonstrations and of readings, before training

Gaussian = tuple[torch.Tensor, torch.Tensor]
"""Mean and log-variance of a diagonal Gaussian, each [B, latent]."""


class NeighbourPrior(nn.Module):
    """Attention of a condition over the training tasks.

    Args:
        tasks: n, how many are remembered.
        hidden: numbers in a state.
        reading: numbers that the reader makes of a support.
        latent_dim: numbers in z.
        log_variance: of each task's Gaussian before training.
    """

    text: torch.Tensor
    shown: torch.Tensor
    readings: torch.Tensor

    def __init__(self, tasks: int, hidden: int, reading: int, latent_dim: int, log_variance: float) -> None:
        """Make a Gaussian for each task; its keys are zeros until they are read."""
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
        """Take over the pooled states of the tasks' descriptions and demonstrations.

        Args:
            texts: of each task, its descriptions as a batch.
            shown: of each task, draws of demonstrations as a batch, or None where it has none.
        """
        for known, slot, supports in ((self.text, TEXT, texts), (self.shown, SHOWN, shown)):
            start = (slot - TEXT) * self.hidden
            for row, support in zip(known, supports, strict=True):
                row.copy_(
                    torch.zeros(self.hidden) if support is None else pooled(support).mean(0)[start:][: self.hidden]
                )

    @torch.no_grad()
    def remember_readings(self, texts: Sequence[Support], reader: MeanReader | AttentionReader) -> None:
        """Take over what the reader makes of the tasks' descriptions, the mean over those of each task."""
        read = reader(Support.stack(texts).to(self.readings.device))
        counts = [len(item.slots) for item in texts]
        units = nn.functional.normalize(read, dim=1).split(counts)
        self.readings.copy_(torch.stack([item.mean(0) for item in units]))

    def logits(self, c: torch.Tensor) -> torch.Tensor:
        """Return how alike each training task is to a condition, [B, n].

        Args:
            c: fp32 [B, reading + 2 * hidden + 2]: what the reader made of a support, and its slots, pooled.
        """
        reading, text, shown, flags = c.split([self.reading, self.hidden, self.hidden, 2], dim=1)
        both = flags.prod(1, keepdim=True)
        kinds = torch.cat([flags - both, both], dim=1)  # (B, 3): text, demonstrations, both; 0 where there is nothing
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
        """Return the softmax of ``logits``: how much of each training task is in a condition, [B, n]."""
        return self.logits(c).softmax(1)

    def own(self, c: torch.Tensor, tasks: torch.Tensor) -> tuple[Gaussian, torch.Tensor]:
        """Return the Gaussians of the rows' own tasks, and the mean -log of their weights, in nats.

        Args:
            c: fp32 [B, reading + 2 * hidden + 2].
            tasks: int64 [B].
        """
        return (self.means[tasks], self.log_variances[tasks]), nn.functional.cross_entropy(self.logits(c), tasks)

    def mean_of_others(
        self, c: torch.Tensor, tasks: torch.Tensor, tokens: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean cores of the other tasks by their weights, [B, modules, R, R].

        Args:
            c: fp32 [B, reading + 2 * hidden + 2].
            tasks: int64 [B], the task that is left out.
            tokens: the cores of all training adapters, [adapters, modules, R, R].
            owners: int64 [adapters], the task of each.
        """
        hidden = torch.arange(len(self.text), device=c.device) == tasks[:, None]
        weights = self.logits(c).masked_fill(hidden, -math.inf).softmax(1)
        return torch.einsum("ba,amij->bmij", weights[:, owners] / owners.bincount()[owners], tokens)

    def forward(self, c: torch.Tensor) -> Gaussian:
        """Return the weighted mean and log-variance of the tasks' Gaussians, for c as ``logits`` takes it."""
        weights = self.weights(c)
        return weights @ self.means, weights @ self.log_variances

    def sample(self, c: torch.Tensor, rng: torch.Generator) -> Gaussian:
        """Return the Gaussian of one task for each row, drawn by its weight, on the CPU's stream."""
        chosen = torch.multinomial(self.weights(c).cpu(), 1, generator=rng)[:, 0].to(c.device)
        return self.means[chosen], self.log_variances[chosen]


def _cosines(own: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return cosines [B, n] of rows after standardisation over the known ones; 0 with those that are zero."""
    there = known.abs().amax(1) > 0
    if int(there.sum()) < 2:
        return nn.functional.normalize(own, dim=1) @ nn.functional.normalize(known, dim=1).T
    mean, std = known[there].mean(0), known[there].std(0).clamp(min=1e-6)
    unit = nn.functional.normalize((known - mean) / std, dim=1) * there[:, None]
    return nn.functional.normalize((own - mean) / std, dim=1) @ unit.T
