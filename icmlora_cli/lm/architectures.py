"""Which of transformers' classes a base is loaded as, by its configuration, and what needs a decoder alone."""

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from icmlora_cli.errors import UsageError


def reads_images(config: PreTrainedConfig) -> bool:
    """Tell whether a base reads images.

    Args:
        config: the base's ``config.json``. Its ``architectures`` count, since some checkpoints hold a language model
            alone under a type of model that can have more.
    """
    names = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    known = {names} if isinstance(names, str) else set(names or ())
    return bool(known & set(config.architectures or ())) and getattr(config, "vision_config", None) is not None


def is_encoder_decoder(config: PreTrainedConfig) -> bool:
    """Tell whether a base reads its prompt with an encoder and writes its answer with a decoder."""
    return bool(getattr(config, "is_encoder_decoder", False))


def auto_class(config: PreTrainedConfig) -> Any:  # transformers has no types
    """Return transformers' class that loads a base with this configuration."""
    if reads_images(config):
        return AutoModelForImageTextToText
    return AutoModelForSeq2SeqLM if is_encoder_decoder(config) else AutoModelForCausalLM


def only_decoders(model: PreTrainedModel, name: str, what: str) -> None:
    """Check that a base is a decoder alone, for what is there for such bases only.

    Args:
        model: the base.
        name: the base's name, for the message.
        what: what needs such a base, as the subject of a sentence.

    Raises:
        UsageError: if it has an encoder.
    """
    if is_encoder_decoder(model.config):
        raise UsageError(
            f"{what} needs a base that is a decoder alone; {name} reads its prompts with an encoder",
            hint="give another base, such as --base smollm2-135m",
        )
