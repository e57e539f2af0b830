"""Gradient checkpointing of a frozen base: its blocks compute their activations again in the backward pass."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from icmlora_cli.errors import UsageError


def checkpoint_blocks(model: PreTrainedModel) -> None:
    """Turn on gradient checkpointing.

    Only the blocks themselves are put in training mode, which transformers requires for it.

    Args:
        model: the base.

    Raises:
        UsageError: if transformers cannot do this in the model's architecture.
    """
    if not model.supports_gradient_checkpointing:
        raise UsageError(
            f"{type(model).__name__} cannot compute its activations twice",
            hint="gradient_checkpointing: false in the recipe, and a smaller micro_batch",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer releases call it activation checkpointing
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.disable_input_require_grads()  # only re-entrant checkpointing needs it
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # not its children, whose dropout stays off


@contextmanager
def checkpointed(model: PreTrainedModel, *, on: bool = True) -> Iterator[None]:
    """Turn gradient checkpointing on within the body, if ``on`` is set; forward and backward pass both belong in it."""
    if not on:
        yield
        return
    checkpoint_blocks(model)
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_disable()
        model.eval()
