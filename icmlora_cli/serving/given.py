"""The PEFT folders that ``icmlora serve --adapter`` names, checked as ``icmlora adapter import`` checks them."""

from collections.abc import Mapping
from pathlib import Path

import torch

from icmlora_cli.errors import NotFoundError
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.meta_model import base_shapes
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.apply import placed
from icmlora_cli.weights.foreign.check import BaseShapes, check_name
from icmlora_cli.weights.foreign.config import CONFIG, read_settings
from icmlora_cli.weights.foreign.project import represent
from icmlora_cli.weights.foreign.read import ForeignAdapter, read_foreign


class GivenAdapters:
    """The adapters of ``--adapter``, read and checked before the base is loaded.

    Args:
        base: The base model that the adapters have to be for.
        folders: PEFT folders by the names under which they are served.
        any_base_name: Whether adapters may name another base in their configuration; their shapes must fit all the
            same.

    Raises:
        CorruptFileError: If a file is damaged, or a number is not finite.
        NotFoundError: If there is no such folder, or there are no weights in it.
        UnsupportedAdapterError: If an adapter is no LoRA, or was trained on an altered copy of the base.
        WrongBaseError: If an adapter is for another base.
    """

    def __init__(self, base: Base, folders: Mapping[str, Path], *, any_base_name: bool = False) -> None:
        """Read the adapters, and the base's shapes to compare theirs with."""
        self._base, self._any_base_name = base, any_base_name
        self._shapes = base_shapes(base) if folders else BaseShapes({}, {})
        self._adapters = {name: self._read(folder) for name, folder in folders.items()}

    def _read(self, folder: Path) -> ForeignAdapter:
        if not (folder / CONFIG).is_file():
            raise NotFoundError(f"there is no {CONFIG}", where=str(folder), hint="give the folder that PEFT saved")
        settings = read_settings(folder)
        if not self._any_base_name:
            check_name(settings, self._base.known_as, str(folder))
        return read_foreign(folder, settings, self._shapes)

    def placed(self, loaded: LoadedBase) -> dict[str, Adapter]:
        """Return the adapters by name, with their tensors on the device of the base's modules.

        Args:
            loaded: The loaded base.

        Raises:
            CorruptFileError: If a number of a delta-W is not finite.
            UnsupportedAdapterError: If an adapter has parts that a LoRA cannot hold.
        """

        def weight_of(name: str) -> torch.Tensor:
            parameter: torch.Tensor = loaded.model.get_parameter(name).detach().float().cpu()
            return parameter

        adapters = {}
        for name, foreign in self._adapters.items():
            adapter, _ = represent(foreign, self._shapes, weight_of, self._base.model_id)
            adapters[name] = placed(loaded.model, adapter)
        return adapters
