"""The settings of eval: which methods are compared, and how they are scored."""

from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field

from icmlora_cli.config.recipe_model import Count, Positive, RecipeModel, Seed

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
    "gen-examples",
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
        samples: K, the number of candidates of ``best-of``.
        neighbours: K, the number of adapters that ``weighted`` sums.
        multi_task_steps: optimizer steps of the LoRA that is trained on all tasks.
        tune_seconds: wall time of ``tuned`` for a task.
        evidence_seconds: wall time of ``gen-examples`` for a task, as of ``gen --budget``.
        train_baselines: train the ``conv1d`` and ``p-diff`` generators where they are not there yet.
        baseline_steps: optimizer steps of these baselines; null trains as the recipes ``train/conv1d`` and
            ``train/p-diff`` say, until the loss is flat.
        unrelated: measure how an adapter changes the NLL of text that has nothing to do with its task.
        outputs: test examples whose outputs the result shows, for each task and method.
        resamples: the number of resamples of the bootstrap.
        seed: the seed of shots, noise, samples and resamples.
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
    evidence_seconds: Positive = 60.0
    train_baselines: bool = True
    baseline_steps: Count | None = None
    unrelated: bool = True
    outputs: Annotated[int, Field(ge=0)] = 8
    resamples: Annotated[int, Field(ge=100)] = 1000
    seed: Seed = 0
