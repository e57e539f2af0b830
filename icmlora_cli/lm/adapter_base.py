"""A base model as adapters are checked against it: its shapes, and its weights as they are stored."""

from functools import cache

import torch
from safetensors import safe_open

from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.meta_model import checkpoint_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.foreign.open import AdapterBase


def adapter_base(base: Base) -> AdapterBase:
    """Return a base as ``weights.foreign.open`` wants it; no weight is read before it is asked for.

    Args:
        base: a recorded base.

    Raises:
        CorruptFileError: if its configuration or a header cannot be read, or a file is missing.
    """
    checkpoint = checkpoint_of(base)
    files = {item.name: shard.path for shard in checkpoint.shards for item in shard.tensors}
    tied = checkpoint.tied or ("", "")

    @cache
    def model() -> torch.nn.Module:
        loaded: torch.nn.Module = load_base(base, device="cpu", dtype="float32").model
        return loaded

    def weight_of(name: str) -> torch.Tensor:
        key = checkpoint.stored.get(name) or checkpoint.stored.get(tied[0] if name == tied[1] else name)
        if key is not None:
            with safe_open(files[key], framework="pt") as stored:
                tensor: torch.Tensor = stored.get_tensor(key)
            return tensor.float()
        # transformers computes it from several tensors when it loads the model
        parameter: torch.Tensor = model().get_parameter(name).detach()
        return parameter

    return AdapterBase(base.model_id, base.known_as, base.weight_hash, checkpoint.shapes, weight_of)
