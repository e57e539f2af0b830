"""Rank and dtype of a LoRA, from the header of its safetensors file alone: no tensor is read, nothing is imported."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from icmlora_cli.disk.safetensors_header import NAMES, safetensors_header

FACTOR = ".lora_A."


@dataclass(frozen=True)
class LoraFormat:
    """How a LoRA is stored.

    Args:
        rank: of its modules, such as ``8``; ``2-16`` where they differ; None where the file does not say.
        dtype: of its numbers, such as ``bf16``; ``bf16+fp32`` where they differ; None where the file does not say.
    """

    rank: str | None
    dtype: str | None


def lora_format(path: Path) -> LoraFormat:
    """Return rank and dtype of a PEFT weights file; neither is known where it is missing or its header is damaged."""
    try:
        return _parsed(safetensors_header(path))
    except FileNotFoundError:
        return LoraFormat(None, None)


@lru_cache(maxsize=32)  # adapters of one recipe have one header, to the byte
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
