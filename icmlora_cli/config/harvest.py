"""The settings of harvest: how one LoRA per task is trained on the frozen base."""

from typing import Literal

from icmlora_cli.config.recipe_model import Count, Decay, Positive, Rate, RecipeModel, Seed, Share


class HarvestRecipe(RecipeModel):
    """How one LoRA per task is trained on the frozen base.

    Args:
        parametrization: what is trained: ``lora`` (A and B), ``frozen-a`` (B alone, with the seed's A), or ``frame``
            (a core of rank x rank a module, in a frame that the seed gives; see ``weights.frame``).
        rank: the rank r of the LoRA, or the width R of the frame.
        alpha: ``lora_alpha``; delta-W is scaled by alpha / rank. A frame's scaling is 1.
        target_modules: ``auto`` (PEFT's default for the architecture) or module name endings.
        steps: the number of optimizer steps for each task.
        batch_size: the number of examples in each step.
        learning_rate: the peak of the one-cycle schedule.
        warmup: share of the steps in which the rate rises.
        weight_decay: the weight decay of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        keep: how many of the last checkpoints are kept.
        keep_every: steps between kept checkpoints.
        save_every: steps between saves of the training state, for resuming.
        validate_on: validation examples scored at the end, at most.
        seed: the seed of lora_A (one for all tasks of a base) and of the order of the data.
    """

    parametrization: Literal["lora", "frozen-a", "frame"] = "lora"
    rank: Count = 4
    alpha: Positive = 8.0
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    steps: Count = 100
    batch_size: Count = 12
    learning_rate: Rate = 3e-3
    warmup: Share = 0.2
    weight_decay: Decay = 0.0
    max_grad_norm: Positive = 1.0
    keep: Count = 3
    keep_every: Count = 5
    save_every: Count = 25
    validate_on: Count = 64
    seed: Seed = 0
