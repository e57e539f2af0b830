"""The rank and dtype of a LoRA, read from the header of its safetensors file without its tensors and without torch."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from icmlora_cli.disk.safetensors_header import NAMES, safetensors_header

FACTOR = ".lora_A."


@dataclass(frozen=True)
class LoraFormat:
    """The rank and the number format of a LoRA, as lists of adapters show them.

    Args:
        rank: the rank of its modules, such as ``8``, or ``2-16`` if they differ; None if the file does not say.
        dtype: the number format, such as ``bf16``, or ``bf16+fp32`` if tensors differ; None if the file does not say.
    """

    rank: str | None
    dtype: str | None


def lora_format(path: Path) -> LoraFormat:
    """Return rank and dtype of a PEFT weights file; both are None if it is missing or its header is damaged."""
    try:
        return _parsed(safetensors_header(path))
    except FileNotFoundError:
        return LoraFormat(None, None)


@lru_cache(maxsize=32)  # adapters of the same recipe have the same header
def _parsed(header: bytes) -> LoraFormat:
    try:
        entries = json.loads(header)
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        ranks = sorted({min(entry["shape"]) for name, entry in tensors.items() if FACTOR in name})
        dtypes = sorted({NAMES.get(entry["dtype"], str(entry["dtype"]).lower()) for entry in tensors.values()})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return LoraFormat(None, None)
    rank = None if not ranks else str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
    return LoraFormat(rank, "+".join(dtypes) or None)
