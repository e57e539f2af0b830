"""The settings of train, in groups: each part of a training is given its own group, and no more."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.recipe_model import Count, Decay, NotNegative, Positive, Rate, RecipeModel, Seed, Share


class VectorRecipe(RecipeModel):
    """How task vectors are read from the frozen base.

    Args:
        layer: share of the base's depth whose hidden state is read (0.67 is layer 20 of 30).
        pooling: ``mean``: one vector, the mean over a description's tokens or the last token after demonstrations;
            ``tokens``: the states of all tokens, for a reader that attends over them.
        shots: the number of demonstrations in one prompt.
        draws: the number of readings of demonstrations for each task.
    """

    layer: Annotated[float, Field(gt=0, le=1)] = 0.67
    pooling: Literal["mean", "tokens"] = "mean"
    shots: Count = 5
    draws: Count = 8


class DataRecipe(RecipeModel):
    """What a generator learns from, and in which basis it is written.

    Args:
        vectors: how task vectors are read.
        target_modules: ``auto`` or module name endings; where no adapters say which modules there are.
        basis: ``frame`` (the seeded frame that the adapters were harvested in), ``learned`` (from the adapters, kept
            in the generator) or ``auto``: the frame where all adapters share one.
        frame_seed: the seed of the frame, where no adapters say which.
        frame_width: the width R of that frame.
        directions: learned directions added to each side of the frame, for adapters that were not harvested in it.
        core_scale: root mean square of the cores, where no adapters say.
        energy: share of the adapters' energy that each side of the codec's basis keeps.
        max_width: largest width of the basis.
        condition_noise: standard deviation of the noise on standardised hidden states.
        token_dropout: probability that a token of the support is left out.
    """

    vectors: VectorRecipe = VectorRecipe()
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    basis: Literal["auto", "frame", "learned"] = "auto"
    frame_seed: Seed = 0
    frame_width: Count = 16
    directions: Annotated[int, Field(ge=0)] = 0
    core_scale: Positive = 0.3
    energy: Annotated[float, Field(gt=0, le=1)] = 0.999
    max_width: Count = 48
    condition_noise: NotNegative = 0.1
    token_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class NetworkRecipe(RecipeModel):
    """The networks: the architecture and its sizes, the prior, and the reader.

    Args:
        arch: ``token`` (a head per module), ``conv1d`` (the paper's strided convolutions) or ``p-diff`` (COND P-DIFF,
            latent diffusion).
        latent_dim: size of z.
        hidden_dim: width of the networks.
        code_dim: numbers between the networks and the heads.
        heads: ``shared`` by the layers, of each ``module``, or ``auto``: shared in a frame, of each module in a learned
            basis, which is wide and kept for each module anyway; ``token`` only.
        code_norm: bring each code to the length sqrt(code_dim) before the heads (this and the next three: ``token``
            only).
        output_scale: multiply what a head gives by a learned factor of its module, which starts at zero.
        mean_adapter: add the mean of the harvested adapters, so that the networks learn the differences from it.
        bounded: bound each module's numbers by tanh(x) * exp(s) with a learned s of its module, which starts at this
            value; the root mean square of harvested numbers is 1, and the mean adapter is not bounded. Null: no bound.
        prior: ``learned``, p(z | c) by a network; ``neighbours``, p(z | c) of the training tasks that are alike; or
            ``standard``, N(0, I), as in the paper; ``token`` only.
        reader: how a support becomes the condition: ``mean`` (nothing learned, as in the paper) or ``attention``.
        reader_dim: width of the reader (this and the next three: ``attention`` only).
        reader_layers: transformer blocks of the reader.
        queries: learned queries of the reader.
        condition_dim: numbers in the condition.
    """

    arch: Literal["token", "conv1d", "p-diff"] = "token"
    latent_dim: Count = 32
    hidden_dim: Count = 256
    code_dim: Count = 64
    heads: Literal["auto", "shared", "module"] = "auto"
    code_norm: bool = False
    output_scale: bool = False
    mean_adapter: bool = False
    bounded: Annotated[float, Field(ge=-20, le=20)] | None = None
    prior: Literal["learned", "neighbours", "standard"] = "learned"
    reader: Literal["mean", "attention"] = "mean"
    reader_dim: Annotated[int, Field(ge=4, multiple_of=4)] = 128
    reader_layers: Annotated[int, Field(ge=0)] = 1
    queries: Count = 4
    condition_dim: Count = 128


class ObjectiveRecipe(RecipeModel):
    """What is minimised on harvested adapters: the weights of its parts, and the noise of ``p-diff``.

    Args:
        kl_weight: weight of the KL term after its warm-up (0.005 in the paper); not of ``p-diff``.
        kl_warmup: share of the steps of the first stage in which that weight rises; not of ``p-diff``.
        prior_share: share of the loss on adapters that is their reconstruction with z from p(z | c), as in generation,
            in place of the ELBO; not of ``p-diff``.
        elbo_weight: weight of the loss on adapters beside that of episodes.
        choice_weight: the weight of the loss, in nats, that teaches the prior to choose a task's own Gaussian;
            ``neighbours`` only.
        neighbour_weight: the weight of the error of the other tasks' weighted mean adapter as a guess of a task's own,
            relative to predicting zero; ``neighbours`` only.
        sensitivity: the share of the weight of each number's squared error that is the mean squared gradient of its
            task's loss at the harvested adapter, with a mean of 1; the rest is 1. It needs harvests in a frame.
        parameter_noise: standard deviation of the noise on normalised parameters while the autoencoder trains, whose
            root mean square is 1; ``p-diff`` only.
        latent_noise: the standard deviation of the noise on latents, which lie in (-1, 1); ``p-diff`` only.
    """

    kl_weight: NotNegative = 0.005
    kl_warmup: Share = 0.3
    prior_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    elbo_weight: NotNegative = 1.0
    choice_weight: NotNegative = 0.1
    neighbour_weight: NotNegative = 0.1
    sensitivity: Share = 0.0
    parameter_noise: NotNegative = 0.001
    latent_noise: NotNegative = 0.1


class OptimiserRecipe(RecipeModel):
    """How many steps there are, of what, and at which rate.

    Args:
        steps: optimizer steps in all, each on adapters drawn at random.
        epochs: passes over all kept checkpoints in all, in random order, in place of ``steps``; null counts steps.
        patience: the number of epochs in which the loss must fall by 1 %, or the rate becomes a tenth of what it was;
            the third time that it does not fall, its stage of the training ends. Null: all epochs, at a rate that falls
            as a cosine.
        pretrain_steps: how many of them, at the start, are without episodes.
        pretrain_rate: peak of the learning rate in those; null takes ``learning_rate``.
        autoencoder_share: share of the steps that train the autoencoder, before the diffusion; ``p-diff`` only.
        batch_size: the number of (adapter, condition) pairs in each step.
        learning_rate: peak, cosine to zero; with ``patience``, what it is until the loss is flat.
        weight_decay: the weight decay of AdamW.
        save_every: steps between saves of the training state, for resuming.
    """

    steps: Count = 1500
    epochs: Count | None = None
    patience: Count | None = None
    pretrain_steps: Annotated[int, Field(ge=0)] = 0
    pretrain_rate: Rate | None = None
    autoencoder_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    batch_size: Count = 16
    learning_rate: Rate = 2e-3
    weight_decay: Decay = 0.0
    save_every: Count = 250

    def epoch_steps(self, adapters: int) -> int:
        """Return how many steps one pass over so many adapters takes."""
        return -(-adapters // self.batch_size)

    def resolved(self, adapters: int) -> "OptimiserRecipe":
        """Return the settings with ``steps`` as many as the epochs over so many adapters take, if there are epochs."""
        if self.epochs is None:
            return self
        return self.model_copy(update={"steps": self.epochs * self.epoch_steps(adapters)})


class TrainRecipe(RecipeModel):
    """How the generator is trained on harvested adapters, and in episodes.

    Args:
        data: what it learns from, and in which basis.
        network: the architecture and its sizes.
        objective: what is minimised on harvested adapters.
        optimiser: steps and rates.
        episodes: in-context meta-learning; null trains on adapters alone.
        seed: the seed of initialisation, data order and noise.
        storage: how the weights are saved: ``fp32``, ``bf16``, or ``int8`` with a scale a row.
    """

    GROUPS: ClassVar[Mapping[str, type[RecipeModel]]] = {
        "data": DataRecipe,
        "network": NetworkRecipe,
        "objective": ObjectiveRecipe,
        "optimiser": OptimiserRecipe,
    }
    LATER: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "network": ("code_norm", "output_scale", "mean_adapter", "bounded"),
        "objective": ("sensitivity",),
        "optimiser": ("epochs", "patience"),
        "episodes": ("swap_weight", "swap_margin", "distill_weight", "distill_examples"),
    }
    """The settings that 0.1.0 did not have; where they have their default, a training is what it was without them."""
    replaces: ClassVar[Mapping[str, tuple[str, ...]]] = {"steps": ("epochs", "patience")}
    moved: ClassVar[Mapping[str, str]] = {name: group for group, model in GROUPS.items() for name in model.model_fields}

    data: DataRecipe = DataRecipe()
    network: NetworkRecipe = NetworkRecipe()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    optimiser: OptimiserRecipe = OptimiserRecipe()
    episodes: EpisodeRecipe | None = None
    seed: Seed = 0
    storage: Literal["fp32", "bf16", "int8"] = "fp32"

    @property
    def queries_base(self) -> bool:
        """Whether episodes send queries through the base, and so train cores as they are."""
        return self.episodes is not None and self.episodes.weight > 0

    def flat(self) -> dict[str, object]:
        """Return the recipe's values in JSON's types without the groups, as 0.1.0 wrote them.

        Later settings are among them only where they do not have their default.
        """
        parts = {name: part for name in self.LATER if isinstance(part := getattr(self, name), RecipeModel)}
        unchanged = {
            name: {key for key in self.LATER[name] if getattr(part, key) == type(part).model_fields[key].default}
            for name, part in parts.items()
        }
        values: dict[str, object] = self.model_dump(mode="json", exclude=unchanged)
        groups = [values.pop(group) for group in self.GROUPS]
        # every group is a mapping; the check is for mypy, to which a dumped value is any object
        return {name: value for group in groups if isinstance(group, dict) for name, value in group.items()} | values


def nested(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a train recipe in their groups; those that 0.1.0 wrote, which had none, are put there.

    Args:
        values: the recipe that a ``generator.json`` holds, with groups or without.
    """
    groups: dict[str, object] = {name: value for name, value in values.items() if name not in TrainRecipe.moved}
    for name, group in TrainRecipe.moved.items():
        if name in values:
            inside = groups.get(group)
            groups[group] = {**(inside if isinstance(inside, Mapping) else {}), name: values[name]}
    return groups
