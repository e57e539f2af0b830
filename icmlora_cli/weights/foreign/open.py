"""The one door for PEFT folders that icmlora's registry does not vouch for: every command opens them here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError, WrongBaseError
from icmlora_cli.manifests.output import read_output
from icmlora_cli.provenance.versions import ABOUT
from icmlora_cli.registry.bases import names_weights
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.foreign.check import BaseModule, BaseShapes, check_name
from icmlora_cli.weights.foreign.config import read_settings
from icmlora_cli.weights.foreign.project import represent
from icmlora_cli.weights.foreign.read import ForeignAdapter, read_foreign


@dataclass(frozen=True)
class AdapterBase:
    """The base model that adapters are opened for.

    Args:
        model_id: the name that its adapters' configurations get.
        known_as: all its names: alias, hub id, folder.
        weight_hash: The hash of the base's weights.
        shapes: The shapes of the base's modules and parameters.
        weight_of: gives a parameter by its full name, in fp32 and the base's own orientation.
    """

    model_id: str
    known_as: tuple[str, ...]
    weight_hash: str
    shapes: BaseShapes
    weight_of: Callable[[str], torch.Tensor]


def open_foreign(
    folder: Path, base: AdapterBase | None, *, any_base_name: bool = False, allow_pickle: bool = False
) -> ForeignAdapter:
    """Open a PEFT folder, with all that it holds.

    Args:
        folder: holds ``adapter_config.json`` and the weights.
        base: what it is to be used with; None looks at the folder alone.
        any_base_name: take one that says it is for another base; its shapes must still fit.
        allow_pickle: read ``adapter_model.bin`` too, with ``weights_only=True``.

    Raises:
        CorruptFileError: if a file is damaged, or a number is not finite.
        NotFoundError: if a file is missing.
        UnsupportedAdapterError: if it is of another kind than LoRA.
        WrongBaseError: if it is for another base.
    """
    settings = read_settings(folder)
    if base is not None and not any_base_name:
        if not names_weights(settings.base_model, base.weight_hash):
            check_name(settings, base.known_as, str(folder))
        _check_weight_hash(folder, base)
    return read_foreign(folder, settings, None if base is None else base.shapes, allow_pickle=allow_pickle)


def open_adapter(folder: Path, base: AdapterBase | None, *, any_base_name: bool = False) -> Adapter:
    """Open a PEFT folder that is a LoRA and nothing more, whatever kind of LoRA it was written as.

    What it holds beside its factors must be equal to the base's.

    Args:
        folder: see ``open_foreign``.
        base: what it is to be used with; None looks at the folder alone.
        any_base_name: see ``open_foreign``.

    Raises:
        CorruptFileError: if a file is damaged, or a number is not finite.
        NotFoundError: if a file is missing.
        UnsupportedAdapterError: if it is of another kind than LoRA, or more than one.
        WrongBaseError: if it is for another base.
    """
    foreign = open_foreign(folder, base, any_base_name=any_base_name)
    if base is not None:
        return represent(foreign, base.shapes, base.weight_of, base.model_id)[0]
    kind = "conv1d" if foreign.settings.fan_in_fan_out else "linear"
    modules = {module: BaseModule(kind, 0, 0) for module in foreign.parts.of("A")}
    whole = {name: tuple(foreign.tensors[tensor].shape) for name, tensor in foreign.parts.whole.items()}

    def unknown(name: str) -> torch.Tensor:
        raise UnsupportedAdapterError(
            f"the adapter holds more than lora_A and lora_B: {name} can only be judged beside its base",
            where=str(folder),
            hint=f'icmlora adapter import {folder} --describe "...", and name the imported one',
        )

    return represent(foreign, BaseShapes(modules, whole), unknown, foreign.settings.base_model)[0]


def _check_weight_hash(folder: Path, base: AdapterBase) -> None:
    """Check the base's weights against those that ``icmlora.json``, where there is one, says the adapter is for."""
    if not (folder / ABOUT).is_file():
        return
    held = read_output(folder)
    if held.merged:
        raise CorruptFileError(f"{folder.name} holds a merged model, no adapter", where=str(folder))
    if held.base.weight_hash not in (None, base.weight_hash):
        raise WrongBaseError(
            f"the adapter is for other weights than those of {base.known_as[0]}",
            where=str(folder / ABOUT),
            hint=f"--base {held.base.model_id or 'with the base that it was made for'}",
        )
