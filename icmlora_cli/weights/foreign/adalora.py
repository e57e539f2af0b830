"""AdaLoRA (Zhang et al., 2023, https://huggingface.co/papers/2303.10512): delta-W = s B (E * A), which is a LoRA.

E is [r, 1]; s is alpha / (init_r + 1e-5), whatever ranks are left of a module after its pruning (PEFT's
``tuners/adalora``).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.foreign.config import CONFIG, LoraSettings
from icmlora_cli.weights.foreign.headers import SAVE_AGAIN, TensorEntry
from icmlora_cli.weights.foreign.keys import KeyParts


def check_kind(parts: KeyParts, settings: LoraSettings, folder: Path) -> None:
    """Check that lora_E is there where, and only where, the configuration is AdaLoRA's.

    Raises:
        CorruptFileError: if it is not so.
    """
    lacking = [module for module in parts.of("A") if module not in parts.of("E")]
    if settings.init_rank is not None and lacking:
        raise CorruptFileError(
            f"{CONFIG} is that of an AdaLoRA, and {lacking[0]} has no lora_E", where=str(folder), hint=SAVE_AGAIN
        )
    if settings.init_rank is None and (parts.of("E") or parts.of("ranknum")):
        raise CorruptFileError(
            f"the weights are an AdaLoRA's (lora_E), and {CONFIG} says LORA", where=str(folder), hint=SAVE_AGAIN
        )


def pruned(
    parts: KeyParts, entries: Mapping[str, TensorEntry], settings: LoraSettings, where: str
) -> tuple[KeyParts, LoraSettings]:
    """Return the parts without modules of which no rank is left, and the settings with each factor's rank.

    Raises:
        CorruptFileError: if a lora_E is not a column of its module's rank.
    """
    ranks: dict[str, int] = {}
    for module, name in parts.of("A").items():
        shape, column = entries[name].shape, entries[parts.of("E")[module]].shape
        if len(shape) != 2 or column != (shape[0], 1):
            raise CorruptFileError(
                f"{module}: lora_A is {list(shape)} and lora_E {list(column)}", where=where, hint=SAVE_AGAIN
            )
        ranks[module] = shape[0]
    kept = {
        kind: {module: name for module, name in names.items() if ranks.get(module, 1) > 0}
        for kind, names in parts.modules.items()
    }
    return KeyParts(kept, parts.whole), replace(settings, factor_ranks=ranks)


def folded(parts: KeyParts, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an AdaLoRA's tensors with E within lora_A, in fp32."""
    found = {name: item.float() for name, item in tensors.items()}
    for module, name in parts.of("A").items():
        found[name] = found[name] * found[parts.of("E")[module]]  # (r, in) * (r, 1)
    return found
