"""The interface of all generator networks: how they read, how they train, how z is drawn and how it becomes cores.

Shapes: x [B, modules, R, R] normalised cores; c [B, condition]; z [B, latent].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import nn

from icmlora_cli.config.train import ObjectiveRecipe, OptimiserRecipe
from icmlora_cli.generator.conditions import Support
from icmlora_cli.generator.noise import Rng
from icmlora_cli.generator.reader import AttentionReader, MeanReader


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a generator's networks.

    Args:
        arch: ``token``, ``conv1d`` or ``p-diff``.
        places: for each module with a LoRA, the index of its layer and that of its kind (``q_proj``, ``v_proj`` ...).
        width: R, the number of rows and of columns of a core.
        hidden: how many numbers a hidden state of the base has.
        latent_dim: how many numbers z has.
        hidden_dim: the width of the networks.
        code_dim: how many numbers the decoder's trunk hands to its heads.
        shared_heads: whether the layers share the decoder's heads (``token`` only).
        code_norm: whether codes are brought to one length before the heads (``token`` only).
        output_scale: whether each module has a learned factor, which starts at zero (``token`` only).
        mean_adapter: whether the mean of the training adapters is added (``token`` only).
        bounded: the logarithm of the bound of each module's numbers before training, which is learned; None leaves them
            without a bound (``token`` only).
        learned_prior: whether p(z | c) is learned; the decoder is then given z alone, without c (``token`` only).
        remembered: the number of training tasks that a prior of neighbours mixes; with 0 the learned prior is a
            network (``token`` only).
        reader: the kind of reader, ``mean`` or ``attention``.
        reader_dim: the width of the reader (``attention`` only).
        reader_layers: how many transformer blocks the reader has (``attention`` only).
        queries: how many learned queries the reader has (``attention`` only).
        condition_dim: how many numbers c has (``attention`` only; with ``mean`` they are 2 * hidden + 2).
        batch_norm: whether each convolution is followed by batch normalisation (``conv1d`` only; without it is the form
            that 0.1.0 had).
    """

    arch: str
    places: tuple[tuple[int, int], ...]
    width: int
    hidden: int
    latent_dim: int
    hidden_dim: int
    code_dim: int
    shared_heads: bool = True
    code_norm: bool = False
    output_scale: bool = False
    mean_adapter: bool = False
    bounded: float | None = None
    learned_prior: bool = True
    remembered: int = 0
    reader: str = "mean"
    reader_dim: int = 128
    reader_layers: int = 1
    queries: int = 4
    condition_dim: int = 128
    batch_norm: bool = False

    @property
    def modules(self) -> int:
        """How many modules have a LoRA."""
        return len(self.places)

    @property
    def layers(self) -> int:
        """How many layers there are, up to the last one that has a module with a LoRA."""
        return 1 + max(layer for layer, _ in self.places)

    @property
    def kinds(self) -> int:
        """How many kinds of modules there are."""
        return 1 + max(kind for _, kind in self.places)


@dataclass(frozen=True)
class Batch:
    """The adapters and supports that one step of training learns from.

    Args:
        tokens: the normalised cores of all training adapters, fp32 [adapters, modules, R, R].
        owners: the index of the training task that each of these adapters belongs to, int64 [adapters].
        rows: the indices of the adapters that are in the batch, int64 [B].
        support: for each adapter of the batch, the support of its task.
        weights: the weights of squared errors of each training task's cores, fp32 [tasks, modules, R, R]; None if all
            errors count the same.
    """

    tokens: torch.Tensor
    owners: torch.Tensor
    rows: torch.Tensor
    support: Support
    weights: torch.Tensor | None = None

    @property
    def x(self) -> torch.Tensor:
        """The normalised cores of the batch, fp32 [B, modules, R, R]."""
        return self.tokens[self.rows]

    @property
    def tasks(self) -> torch.Tensor:
        """The index of the training task of each adapter in the batch, int64 [B]."""
        return self.owners[self.rows]

    def part(self, rows: slice) -> "Batch":
        """Return some rows of the batch as a smaller batch."""
        support = Support(self.support.states[rows], self.support.slots[rows])
        return replace(self, rows=self.rows[rows], support=support)


@dataclass(frozen=True)
class TrainStep:
    """Where in a training a step falls.

    Args:
        stage: the index of the step's stage.
        step: how many steps of this stage are done before it.
        steps: how many steps this stage has in all.
    """

    stage: int
    step: int
    steps: int


@dataclass(frozen=True)
class Objective:
    """The weights and scales with which a network computes its losses.

    Args:
        recipe: the weights of the parts of the loss, and the amplitudes of the noise.
        mask: True where a core has numbers, bool [modules, R, R].
        power: the mean square of those numbers over all training adapters, weighted like errors, a scalar tensor.
    """

    recipe: ObjectiveRecipe
    mask: torch.Tensor
    power: torch.Tensor

    def reconstruction(self, decoded: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean squared error of a batch's cores, divided by what predicting zero would cost.

        Args:
            decoded: the cores in place of the batch's own, fp32 [B, modules, R, R].
            batch: the adapters, and how much each of their numbers counts.
        """
        squares = (decoded - batch.x).flatten(1)[:, self.numbers].square()
        if batch.weights is not None:
            squares = squares * batch.weights[batch.tasks].flatten(1)[:, self.numbers]
        return squares.mean() / self.power

    @cached_property
    def numbers(self) -> torch.Tensor:
        """The indices of the numbers that cores have, int64: to index by the mask, the host would wait in each step."""
        return self.mask.flatten().nonzero()[:, 0]


@dataclass(frozen=True)
class Losses:
    """The losses of one batch, all scalars: the total, which is minimised, and its parts by name."""

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]


class Network(nn.Module):
    """The networks of a generator; each architecture is a subclass.

    Args:
        config: the sizes of the networks.
    """

    ENCODER: ClassVar[tuple[str, ...]] = ()
    """The names of the child modules and parameters that only training needs; a saved generator lacks them."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the reader; a subclass builds the rest."""
        super().__init__()
        self.config = config
        self.reader: MeanReader | AttentionReader
        if config.reader == "mean":
            self.reader = MeanReader(config.hidden)
        else:
            self.reader = AttentionReader(
                config.hidden, config.reader_dim, config.queries, config.reader_layers, config.condition_dim
            )

    @property
    def couples_rows(self) -> bool:
        """Whether what a row of a training batch becomes depends on the other rows, so that no batch can be cut."""
        return False

    def read(self, support: Support) -> torch.Tensor:
        """Return the conditions c, [B, condition], of a support."""
        c: torch.Tensor = self.reader(support)
        return c

    def stages(self, optimiser: OptimiserRecipe) -> tuple[int, ...]:
        """Return the number of steps of each stage of training; their sum is ``optimiser.steps``.

        Unless an architecture overrides this, the steps before episodes begin are a stage of their own, if there are
        any, and all others are one stage.
        """
        first = min(optimiser.pretrain_steps, optimiser.steps)
        return (first, optimiser.steps - first) if first else (optimiser.steps,)

    def remember(self, texts: Sequence[Support], shown: Sequence[Support | None] | None = None) -> None:
        """Store what a prior of neighbours knows of the training tasks; other priors ignore it.

        Args:
            texts: for each task, the supports of its descriptions as a batch.
            shown: for each task, the supports of its draws of demonstrations as a batch, or None for a task without;
                None in place of the list leaves the demonstrations that were stored before.
        """

    def start(self, tokens: torch.Tensor) -> None:
        """Take from the training adapters what is kept of them, once, before the first step of a training.

        Args:
            tokens: the normalised cores of all training adapters, fp32 [adapters, modules, R, R].
        """

    def begin(self, stage: int, tokens: torch.Tensor) -> None:
        """Prepare for a stage, both when it starts and when a stopped training resumes within it.

        Args:
            stage: the index of the stage.
            tokens: the normalised cores of all training adapters, fp32 [adapters, modules, R, R].
        """

    def losses(self, batch: Batch, objective: Objective, train_step: TrainStep, rng: Rng) -> Losses:
        """Return the losses of a batch, each of them a mean over its rows, so that a batch can be cut into parts.

        Args:
            batch: the adapters and the supports of their tasks.
            objective: the weights and scales of the losses.
            train_step: where in the training the step falls.
            rng: the random number generator from which everything random is drawn.
        """
        raise TypeError(f"{type(self).__name__} has no losses")

    def sample_latent(self, c: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Return the latents z, [B, latent], for conditions.

        Args:
            c: the conditions, fp32 [B, condition].
            rng: the random number generator from which z is drawn; None gives the choice that the architecture repeats
                every time, such as the prior's mean.
        """
        raise TypeError(f"{type(self).__name__} has no latents")

    def likeliest(self, c: torch.Tensor, count: int) -> tuple[list[int], torch.Tensor] | None:
        """Return the remembered tasks that are most like a condition, and their latents; None for priors without any.

        Args:
            c: the condition, fp32 [1, condition].
            count: how many tasks, at most.

        Returns:
            The numbers of the tasks, the likest first, and the mean of each one's Gaussian, fp32 [tasks, latent].
        """
        return None

    def decode(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Return the normalised cores, [B, modules, R, R], that latents z decode to under conditions c."""
        raise TypeError(f"{type(self).__name__} has no decoder")
