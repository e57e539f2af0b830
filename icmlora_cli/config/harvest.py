"""The settings of harvest: how one LoRA per task is trained on the frozen base."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

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
        max_length: rows of more tokens lose the start of their prompt, which is counted and told; plain text is cut
            into windows of so many tokens instead. null: nothing is cut, and a row that the base cannot read at once
            is refused.
        micro_batch: rows of a task in one forward pass, whose gradients are added up over the step; null: all rows.
        gradient_checkpointing: compute the base's activations twice rather than keep them, for larger bases.
        packing: put the rows of a pass one after the other, without padding, none of which sees another.
        attn_implementation: the kernel of the attention: ``eager``, ``sdpa``, ``flash_attention_2`` (with flash-attn
            installed), or ``auto``, transformers' own choice.
        device_map: ``auto`` spreads the base over all GPUs and main memory, for bases that do not fit one GPU.
        compile: run passes through ``torch.compile``; rows are padded to powers of two, so that there are few shapes.
        quantise: pack the base's linear layers as they are loaded: ``nf4`` into 4 bits (bitsandbytes, as QLoRA does),
            ``int8`` into 8 (torchao); null leaves them as they are.
    """

    LATER: ClassVar[Mapping[str, bool]] = {
        "max_length": True,
        "micro_batch": False,
        "gradient_checkpointing": False,
        "packing": False,
        "attn_implementation": False,
        "device_map": False,
        "compile": False,
        "quantise": True,
    }
    """The settings that 0.1.0 did not have, and whether they decide what is trained, beyond rounding."""

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
    max_length: Annotated[int, Field(ge=2)] | None = None
    micro_batch: Count | None = None
    gradient_checkpointing: bool = False
    packing: bool = False
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    device_map: Literal["auto"] | None = None
    compile: bool = False
    quantise: Literal["nf4", "int8"] | None = None

    @property
    def later_defaults(self) -> set[str]:
        """The names of the later settings that have their default, without which a key is what it was before them."""
        fields = type(self).model_fields
        return {name for name in self.LATER if getattr(self, name) == fields[name].default}

    def decisive(self) -> dict[str, object]:
        """Return the values that decide what is trained, in JSON's types, as keys of harvests hold them.

        Later settings are among them only where they do not have their default, and decide anything.
        """
        left_out = {"save_every", "validate_on", *self.later_defaults}
        left_out |= {name for name, decides in self.LATER.items() if not decides}
        if self.parametrization == "lora":
            left_out.add("parametrization")  # so that adapters from before this setting existed keep their keys
        return self.model_dump(mode="json", exclude=left_out)
