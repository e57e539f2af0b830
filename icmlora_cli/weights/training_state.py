"""The state of an unfinished training: tensors, the optimizer's moments, random streams. Resuming from it is exact."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from icmlora_cli.disk import checksums, files

SLOTS = ("step", "exp_avg", "exp_avg_sq")  # of torch.optim.AdamW


@dataclass(frozen=True)
class Resumed:
    """A state that was found.

    Args:
        step: optimizer steps behind it.
        extra: what was saved beside tensors and optimizer, by name.
        cost: what it took so far, such as seconds.
    """

    step: int
    extra: Mapping[str, torch.Tensor]
    cost: Mapping[str, float]


def save_state(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    identity: str,
    extra: Mapping[str, torch.Tensor] | None = None,
    cost: Mapping[str, float] | None = None,
) -> None:
    """Write a training's state, whole or not at all.

    Args:
        path: the file, safetensors.
        tensors: what is trained, by name, any shapes; buffers may be among them.
        optimizer: AdamW over those of them that are parameters.
        step: optimizer steps done.
        identity: What tells this very run from others; ``load_state`` takes no other's state.
        extra: such as the state of a ``torch.Generator``, uint8.
        cost: what it took so far, such as seconds.

    Raises:
        OutOfSpaceError: if the disk is full; the state that was there before is then still there.
    """
    kept = {f"parameter.{name}": item.detach().contiguous() for name, item in tensors.items()}
    for name, item in tensors.items():
        for slot, value in optimizer.state.get(item, {}).items():
            kept[f"optimizer.{slot}.{name}"] = value.detach().clone().contiguous()
    kept |= {f"extra.{name}": item for name, item in (extra or {}).items()}
    metadata = {"step": str(step), "identity": identity, "cost": json.dumps(dict(cost or {}))}

    def write(temporary: Path) -> None:
        save_file(kept, temporary, metadata=checksums.checked_metadata(metadata))
        checksums.write_checksum(temporary)

    files.write_with(path, write)


def load_state(
    path: Path, tensors: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, *, identity: str
) -> Resumed | None:
    """Put a saved state into tensors and optimizer, in place.

    Args:
        path: the file.
        tensors: The tensors to fill, with the names and shapes that were saved.
        optimizer: An optimizer of the kind that was saved, over the same parameters.
        identity: what the state must be of.

    Returns:
        What was found; None where there is no state of this very run that is as it was written. Nothing is changed
        then.
    """
    if not path.is_file():
        return None
    try:
        if not checksums.is_intact(path):
            return None
        with safe_open(path, framework="pt") as source:
            metadata = source.metadata() or {}
            if metadata.get("identity") != identity:
                return None
            saved: dict[str, torch.Tensor] = {key: source.get_tensor(key) for key in source.keys()}  # noqa: SIM118
    except SafetensorError:
        return None
    with torch.no_grad():
        for name, item in tensors.items():
            item.copy_(saved[f"parameter.{name}"])
            if f"optimizer.step.{name}" in saved:  # a parameter without gradient so far has none
                optimizer.state[item] = {
                    slot: saved[f"optimizer.{slot}.{name}"].to(item.device if slot != "step" else "cpu")
                    for slot in SLOTS
                }
    extra = {key.removeprefix("extra."): item for key, item in saved.items() if key.startswith("extra.")}
    return Resumed(int(metadata["step"]), extra, json.loads(metadata.get("cost", "{}")))
