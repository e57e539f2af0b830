"""Adapters that PEFT itself makes and saves."""

import copy
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel


def saved_by_peft(
    model: PreTrainedModel, folder: Path, *, bias_step: float = 0.0, seed: int = 1, **settings: object
) -> Path:
    """Return an adapter that PEFT itself made, moved off its start, and saved; the model stays as it is.

    Args:
        model: the base.
        folder: to write.
        bias_step: size of the moves of what is no LoRA factor.
        seed: of the moves.
        settings: of LoraConfig.
    """
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8} | settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of tied weights, and says that it saves embeddings
        adapted = get_peft_model(copy.deepcopy(model), config)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, item in adapted.named_parameters():
                if item.requires_grad:  # factors, and what is saved beside them
                    step = 0.05 if "lora_" in name else bias_step
                    item.add_(torch.randn(item.shape, generator=rng) * step)
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
