"""What every generator network offers: how it reads, how it trains, how z is drawn, how z becomes cores.

Shapes: x [B, modules, R, R] normalised cores; c [B, condition]; z [B, latent].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from icmlora_cli.config.train import ObjectiveRecipe, OptimiserRecipe
from icmlora_cli.generator.conditions import Support
from icmlora_cli.generator.reader import AttentionReader, MeanReader


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a generator's networks.

    Args:
        arch: ``token``, ``conv1d`` or ``p-diff``.
        places: of each module with a LoRA, the index of its layer and of its kind (``q_proj``, ``v_proj`` ...).
        width: R, the size of a core.
        hidden: numbers in a hidden state of the base.
        latent_dim: numbers in z.
        hidden_dim: width of the networks.
        code_dim: numbers between the decoder's trunk and its heads.
        shared_heads: the heads are shared by the layers (``token`` only).
        learned_prior: p(z | c) is learned, and the condition speaks through z alone (``token`` only).
        remembered: training tasks whose neighbourhood the learned prior is made of; 0 for a network (``token`` only).
        reader: ``mean`` or ``attention``; the sizes below are of the latter.
        reader_dim: width of the reader.
        reader_layers: transformer blocks of the reader.
        queries: learned queries of the reader.
        condition_dim: numbers in c.
    """

    arch: str
    places: tuple[tuple[int, int], ...]
    width: int
    hidden: int
    latent_dim: int
    hidden_dim: int
    code_dim: int
    shared_heads: bool = True
    learned_prior: bool = True
    remembered: int = 0
    reader: str = "mean"
    reader_dim: int = 128
    reader_layers: int = 1
    queries: int = 4
    condition_dim: int = 128

    @property
    def modules(self) -> int:
        """Modules with a LoRA."""
        return len(self.places)

    @property
    def layers(self) -> int:
        """Layers that have such modules, up to the last."""
        return 1 + max(layer for layer, _ in self.places)

    @property
    def kinds(self) -> int:
        """Kinds of modules."""
        return 1 + max(kind for _, kind in self.places)


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Args:
        tokens: the normalised cores of all training adapters, fp32 [adapters, modules, R, R].
        owners: the training task that each is of, int64 [adapters].
        rows: which of them are in the batch, int64 [B].
        support: what is read of the task of each.
    """

    tokens: torch.Tensor
    owners: torch.Tensor
    rows: torch.Tensor
    support: Support

    @property
    def x(self) -> torch.Tensor:
        """The cores of the batch, [B, modules, R, R]."""
        return self.tokens[self.rows]

    @property
    def tasks(self) -> torch.Tensor:
        """The training task of each row, int64 [B]."""
        return self.owners[self.rows]


@dataclass(frozen=True)
class TrainStep:
    """Where in its training a step is.

    Args:
        stage: index of the stage.
        step: steps of this stage before it.
        steps: steps of this stage in all.
    """

    stage: int
    step: int
    steps: int


@dataclass(frozen=True)
class Objective:
    """What losses are measured with.

    Args:
        recipe: weights and amplitudes of noise.
        mask: bool [modules, R, R], True where a core has numbers.
        power: mean square of those numbers over all training adapters.
    """

    recipe: ObjectiveRecipe
    mask: torch.Tensor
    power: torch.Tensor

    def reconstruction(self, decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of cores [B, modules, R, R], relative to that of predicting zero."""
        return (decoded - x)[:, self.mask].square().mean() / self.power


@dataclass(frozen=True)
class Losses:
    """Losses of one batch: what is minimised, and its parts by name, all scalars."""

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]


class Network(nn.Module):
    """A generator's networks.

    Args:
        config: their sizes.
    """

    ENCODER: ClassVar[tuple[str, ...]] = ()
    """The children and parameters that only training needs; a saved generator is without them."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the reader of conditions; a subclass adds the rest."""
        super().__init__()
        self.config = config
        self.reader: MeanReader | AttentionReader
        if config.reader == "mean":
            self.reader = MeanReader(config.hidden)
        else:
            self.reader = AttentionReader(
                config.hidden, config.reader_dim, config.queries, config.reader_layers, config.condition_dim
            )

    def read(self, support: Support) -> torch.Tensor:
        """Return the condition c [B, condition] of a support."""
        c: torch.Tensor = self.reader(support)
        return c

    def stages(self, optimiser: OptimiserRecipe) -> tuple[int, ...]:
        """Return the steps of each stage of training; their sum is ``optimiser.steps``.

        Unless overridden: the steps before episodes begin, if any, and the others.
        """
        before = min(optimiser.pretrain_steps, optimiser.steps)
        return (before, optimiser.steps - before) if before else (optimiser.steps,)

    def remember(self, texts: Sequence[Support], shown: Sequence[Support | None] | None = None) -> None:
        """Take over what a prior of neighbours knows of the training tasks; there is nothing to do without one.

        Args:
            texts: of each task, its descriptions as a batch.
            shown: of each task, draws of demonstrations as a batch, or None; without, they are as they were.
        """

    def begin(self, stage: int, tokens: torch.Tensor) -> None:
        """Prepare for a stage, when it starts and again when a stopped training goes on within it.

        Args:
            stage: index of the stage.
            tokens: the normalised cores of all training adapters, fp32 [adapters, modules, R, R].
        """

    def losses(self, batch: Batch, objective: Objective, train_step: TrainStep, rng: torch.Generator) -> Losses:
        """Return the losses of a batch.

        Args:
            batch: the adapters and their conditions.
            objective: what losses are measured with.
            train_step: where in the training this is.
            rng: what all randomness is drawn from.
        """
        raise TypeError(f"{type(self).__name__} has no losses")

    def sample_latent(self, c: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Return z [B, latent] for conditions c.

        Args:
            c: fp32 [B, condition].
            rng: what z is drawn from; None gives the architecture's one repeatable choice.
        """
        raise TypeError(f"{type(self).__name__} has no latents")

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return cores, [B, modules, R, R]."""
        raise TypeError(f"{type(self).__name__} has no decoder")
