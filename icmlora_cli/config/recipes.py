"""Recipes: every setting of a workflow, in YAML. Precedence: command line > recipe > default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from icmlora_cli.config.spec_yaml import load_spec
from icmlora_cli.errors import SpecError, UsageError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class RecipeModel(BaseModel):
    """What all recipes share: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HarvestRecipe(RecipeModel):
    """How one LoRA per task is trained on the frozen base.

    Args:
        parametrization: what is trained: ``lora`` (A and B), ``frozen-a`` (B alone, with the seed's A), or ``frame``
            (a core of rank x rank a module, in a frame that the seed gives; see ``weights.frame``).
        rank: r of the LoRA; R of the frame.
        alpha: ``lora_alpha``; delta-W is scaled by alpha / rank. A frame's scaling is 1.
        target_modules: ``auto`` (PEFT's default for the architecture) or module name endings.
        steps: optimizer steps a task.
        batch_size: examples a step.
        learning_rate: peak of the one-cycle schedule.
        warmup: share of the steps in which the rate rises.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        keep: how many of the last checkpoints are kept.
        keep_every: steps between kept checkpoints.
        save_every: steps between saves of the training state, for resuming.
        validate_on: validation examples scored at the end, at most.
        seed: of lora_A (one for all tasks of a base) and of the order of the data.
    """

    parametrization: Literal["lora", "frozen-a", "frame"] = "lora"
    rank: Count = 4
    alpha: Positive = 8.0
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    steps: Count = 100
    batch_size: Count = 12
    learning_rate: Positive = 3e-3
    warmup: Share = 0.2
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    keep: Count = 3
    keep_every: Count = 5
    save_every: Count = 25
    validate_on: Count = 64
    seed: Seed = 0


class VectorRecipe(RecipeModel):
    """How task vectors are read from the frozen base.

    Args:
        layer: share of the base's depth whose hidden state is read (0.67 is layer 20 of 30).
        pooling: ``mean``: one vector, the mean over a description's tokens or the last token after demonstrations;
            ``tokens``: the states of all tokens, for a reader that attends over them.
        shots: demonstrations in one prompt.
        draws: readings of demonstrations for each task.
    """

    layer: Annotated[float, Field(gt=0, le=1)] = 0.67
    pooling: Literal["mean", "tokens"] = "mean"
    shots: Count = 5
    draws: Count = 8


class QueryTemplate(RecipeModel):
    """How a query of an episode is written.

    Args:
        prompt: holds ``{input}``.
        answer: holds ``{output}``; this is what is learned.
    """

    prompt: Annotated[str, Field(pattern=r"\{input\}")] = "Q: {input}\nA:"
    answer: Annotated[str, Field(pattern=r"\{output\}")] = " {output}\n"


class EpisodeRecipe(RecipeModel):
    """In-context meta-learning: a support becomes an adapter, whose loss on queries is taken through the frozen base.

    Args:
        rows: (task, query) pairs a step, each with an adapter of its own.
        micro_batch: rows in one forward pass; halved by itself when memory does not suffice. null: all rows.
        gradient_checkpointing: compute the base's activations twice rather than keep them, for larger bases.
        builtin: which built-in tasks are drawn beside the registered ones: ``none``, ``catalog`` (those that are not
            held out) or ``dense`` (these and all further ones that the families yield).
        builtin_exclude: names or patterns of built-in tasks never to draw, such as those that are to be measured on.
        per_family: at most so many built-in tasks of each family; null takes all.
        builtin_examples: examples of each built-in task.
        max_tokens: queries of more tokens are left out, unless a task has no shorter ones.
        registered_share: share of the rows that are of registered tasks, where there are any of both.
        phrasings: descriptions composed for each built-in task, beside its own.
        templates: how queries of built-in tasks are written, each as likely; registered tasks have their own.
        weight: of the loss on queries; with 0 there are none, and episodes give the contrast of readings alone.
        prior_weight: of KL(p(z | c) || N(0, I)), in nats a latent number: the bottleneck.
        contrast_weight: of the contrastive loss, which pulls readings of one task together and others apart.
        contrast_tasks: tasks in one contrastive batch, two readings each.
        validation_tasks: built-in tasks that are kept from training, to tell the best weights by the probability of
            their answers.
        validation_examples: of each of them.
        validate_every: steps.
    """

    rows: Count = 12
    micro_batch: Count | None = None
    gradient_checkpointing: bool = False
    builtin: Literal["none", "catalog", "dense"] = "dense"
    builtin_exclude: tuple[str, ...] = ()
    per_family: Count | None = None
    builtin_examples: Count = 200
    max_tokens: Count = 64
    registered_share: Share = 0.5
    phrasings: Annotated[int, Field(ge=0)] = 12
    templates: Annotated[tuple[QueryTemplate, ...], Field(min_length=1)] = (QueryTemplate(),)
    weight: NotNegative = 1.0
    prior_weight: NotNegative = 0.001
    contrast_weight: NotNegative = 0.1
    contrast_tasks: Annotated[int, Field(ge=2)] = 32
    validation_tasks: Annotated[int, Field(ge=0)] = 12
    validation_examples: Count = 12
    validate_every: Count = 250


class TrainRecipe(RecipeModel):
    """How the generator is trained on harvested adapters, and in episodes.

    Args:
        arch: ``token`` (a head per module), ``conv1d`` (the paper's strided convolutions) or ``p-diff`` (COND P-DIFF,
            latent diffusion).
        latent_dim: size of z.
        hidden_dim: width of the networks.
        code_dim: numbers between the networks and the heads.
        heads: ``shared`` by the layers, of each ``module``, or ``auto``: shared in a frame, of each module in a learned
            basis, which is wide and kept for each module anyway; ``token`` only.
        prior: ``learned``, p(z | c) by a network; ``neighbours``, p(z | c) of the training tasks that are alike; or
            ``standard``, N(0, I), as in the paper; ``token`` only.
        choice_weight: of choosing the own task among the neighbours, in nats; ``neighbours`` only.
        neighbour_weight: of making a task's adapter of the others', by their weights, relative to predicting zero;
            ``neighbours`` only.
        reader: how a support becomes the condition: ``mean`` (nothing learned, as in the paper) or ``attention``.
        reader_dim: width of the reader (this and the next three: ``attention`` only).
        reader_layers: transformer blocks of the reader.
        queries: learned queries of the reader.
        condition_dim: numbers in the condition.
        target_modules: ``auto`` or module name endings; where no adapters say which modules there are.
        basis: ``frame`` (the seeded frame that the adapters were harvested in), ``learned`` (from the adapters, kept
            in the generator) or ``auto``: the frame where all adapters share one.
        frame_seed: of the frame, where no adapters say which.
        frame_width: R of that frame.
        directions: learned directions added to each side of the frame, for adapters that were not harvested in it.
        core_scale: root mean square of the cores, where no adapters say.
        energy: share of the adapters' energy that each side of the codec's basis keeps.
        max_width: largest width of the basis.
        steps: optimizer steps in all.
        pretrain_steps: how many of them, at the start, are without episodes.
        pretrain_rate: peak of the learning rate in those; null takes ``learning_rate``.
        batch_size: (adapter, condition) pairs a step.
        learning_rate: peak, cosine to zero.
        weight_decay: of AdamW.
        kl_weight: weight of the KL term after its warm-up (0.005 in the paper); not of ``p-diff``.
        kl_warmup: share of the steps of the first stage in which that weight rises; not of ``p-diff``.
        prior_share: share of the loss on adapters that is their reconstruction with z from p(z | c), as in generation,
            in place of the ELBO; not of ``p-diff``.
        elbo_weight: weight of the loss on adapters beside that of episodes.
        autoencoder_share: share of the steps that train the autoencoder, before the diffusion; ``p-diff`` only.
        parameter_noise: standard deviation of the noise on normalised parameters while the autoencoder trains, whose
            root mean square is 1; ``p-diff`` only.
        latent_noise: the same for latents, which lie in (-1, 1); ``p-diff`` only.
        condition_noise: standard deviation of the noise on standardised hidden states.
        token_dropout: probability that a token of the support is left out.
        save_every: steps between saves of the training state, for resuming.
        seed: of initialisation, data order and noise.
        vectors: how task vectors are read.
        storage: how the weights are saved: ``fp32``, ``bf16``, or ``int8`` with a scale a row.
        episodes: in-context meta-learning; null trains on adapters alone.
    """

    arch: Literal["token", "conv1d", "p-diff"] = "token"
    latent_dim: Count = 32
    hidden_dim: Count = 256
    code_dim: Count = 64
    heads: Literal["auto", "shared", "module"] = "auto"
    prior: Literal["learned", "neighbours", "standard"] = "learned"
    choice_weight: NotNegative = 0.1
    neighbour_weight: NotNegative = 0.1
    reader: Literal["mean", "attention"] = "mean"
    reader_dim: Annotated[int, Field(ge=4, multiple_of=4)] = 128
    reader_layers: Annotated[int, Field(ge=0)] = 1
    queries: Count = 4
    condition_dim: Count = 128
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    basis: Literal["auto", "frame", "learned"] = "auto"
    frame_seed: Seed = 0
    frame_width: Count = 16
    directions: Annotated[int, Field(ge=0)] = 0
    core_scale: Positive = 0.3
    energy: Annotated[float, Field(gt=0, le=1)] = 0.999
    max_width: Count = 48
    steps: Count = 1500
    pretrain_steps: Annotated[int, Field(ge=0)] = 0
    pretrain_rate: Positive | None = None
    batch_size: Count = 16
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.0
    kl_weight: NotNegative = 0.005
    kl_warmup: Share = 0.3
    prior_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    elbo_weight: NotNegative = 1.0
    autoencoder_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    parameter_noise: NotNegative = 0.001
    latent_noise: NotNegative = 0.1
    condition_noise: NotNegative = 0.1
    token_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    save_every: Count = 250
    seed: Seed = 0
    vectors: VectorRecipe = VectorRecipe()
    storage: Literal["fp32", "bf16", "int8"] = "fp32"
    episodes: EpisodeRecipe | None = None

    @property
    def queries_base(self) -> bool:
        """Whether episodes send queries through the base, and so train cores as they are."""
        return self.episodes is not None and self.episodes.weight > 0


METHODS = (
    "base",
    "described",
    "in-context",
    "average",
    "nearest",
    "nearest-other",
    "nearest-shots",
    "weighted",
    "multi-task",
    "noise",
    "random-text",
    "swapped-text",
    "conv1d",
    "p-diff",
    "tuned-same-time",
    "tuned",
    "generated",
    "generated-shots",
    "best-of",
    "harvested",
)


def _methods(value: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in value if name not in METHODS]
    if unknown:
        raise ValueError(f"there is no method {unknown[0]!r}; the methods are: {', '.join(METHODS)}")
    if not value:
        raise ValueError("names no method")
    return tuple(name for name in METHODS if name in value)  # always in the table's order


class EvalRecipe(RecipeModel):
    """How the comparison is scored.

    Args:
        methods: which methods, in the table's order whatever the order here; ``rungs``, the name of 0.1.0, is read too.
        protocol: ``bare`` (only the weights carry the task) or ``described`` (the description is in every prompt).
        limit: test examples a task, at most; null takes all.
        shots: k, the training examples that few-shot methods see, the same for all of them.
        samples: K of ``best-of``.
        neighbours: K of ``weighted``.
        multi_task_steps: optimizer steps of the LoRA that is trained on all tasks.
        tune_seconds: wall time of ``tuned`` for a task.
        train_baselines: train the ``conv1d`` and ``p-diff`` generators where they are not there yet.
        baseline_steps: optimizer steps of that; null takes those of the recipes ``train/conv1d`` and ``train/p-diff``.
        outputs: test examples whose outputs the result shows, for each task and method.
        resamples: of the bootstrap.
        seed: of shots, noise, samples and resamples.
    """

    methods: Annotated[tuple[str, ...], AfterValidator(_methods)] = Field(
        default=METHODS, validation_alias=AliasChoices("methods", "rungs")
    )
    protocol: Literal["bare", "described"] = "bare"
    limit: Count | None = None
    shots: Annotated[int, Field(ge=2)] = 5
    samples: Annotated[int, Field(ge=2)] = 16
    neighbours: Count = 3
    multi_task_steps: Count = 300
    tune_seconds: Positive = 60.0
    train_baselines: bool = True
    baseline_steps: Count | None = None
    outputs: Annotated[int, Field(ge=0)] = 8
    resamples: Annotated[int, Field(ge=100)] = 1000
    seed: Seed = 0


R = TypeVar("R", bound=RecipeModel)
KINDS: dict[str, type[RecipeModel]] = {"harvest": HarvestRecipe, "train": TrainRecipe, "eval": EvalRecipe}


def recipes_folder() -> Path:
    """Return the folder of the recipes that ship with icmlora (in the wheel, or in a source checkout)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the shipped recipes, such as ``harvest/default``."""
    folder = recipes_folder()
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")))


def recipe_path(reference: Path, kind: str) -> Path:
    """Find a recipe by file name, by its shipped name, or by its shipped name within its kind.

    Raises:
        UsageError: if there is none.
    """
    if reference.is_file():
        return reference
    for name in (reference.as_posix(), f"{kind}/{reference.as_posix()}"):
        if name in shipped_recipes():
            return recipes_folder() / f"{name}.yaml"
    raise UsageError(
        f"there is no recipe {str(reference)!r}",
        where=f"{reference.absolute()}, and the recipes that ship with icmlora",
        hint=f"give a YAML file or one of: {', '.join(shipped_recipes())}",
    )


def resolve(model: type[R], reference: Path | None, kind: str, overrides: Mapping[str, object]) -> R:
    """Return a recipe: the defaults, under the file's values, under the command line's.

    Args:
        model: the recipe's class.
        reference: a file or shipped name; None for the defaults.
        kind: ``harvest`` or ``train``: where short names are looked up.
        overrides: values of the command line; None means unset.

    Raises:
        SpecError: if the file or a value is wrong; lists all faults.
        UsageError: if there is no such recipe.
    """
    recipe = model() if reference is None else load_spec(recipe_path(reference, kind), model)
    given = {key: value for key, value in overrides.items() if value is not None}
    if not given:
        return recipe
    try:
        return model.model_validate(recipe.model_dump() | given)
    except ValidationError as error:
        faults = [f"--{'.'.join(map(str, item['loc'])).replace('_', '-')}: {item['msg']}" for item in error.errors()]
        raise SpecError("a value on the command line is wrong", faults) from error
