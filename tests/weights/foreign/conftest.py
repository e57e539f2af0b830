"""Foreign adapters on the tiny bases: folders as PEFT writes them, and the base that they are for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from transformers import PreTrainedModel

from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.meta_model import base_shapes
from icmlora_cli.registry.base_files import describe
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.foreign.check import BaseShapes
from icmlora_cli.weights.foreign.config import read_settings
from icmlora_cli.weights.foreign.project import AdapterPart, represent
from icmlora_cli.weights.foreign.read import read_foreign

IDS = torch.arange(2, 26)[None]


@dataclass(frozen=True)
class Tiny:
    """A tiny model, and what an import needs to know of it."""

    model: PreTrainedModel
    shapes: BaseShapes
    path: Path

    @property
    def targets(self) -> list[str]:
        """The modules that a LoRA can be on."""
        return [name for name, item in self.shapes.modules.items() if item.kind != "embedding" and not item.tied]

    def weight(self, name: str) -> torch.Tensor:
        """Return a parameter in fp32."""
        return self.model.get_parameter(name).detach().float()

    def take(self, folder: Path, **options: object) -> tuple[Adapter, tuple[AdapterPart, ...]]:
        """Read a foreign folder and represent it, as an import does."""
        allow = bool(options.pop("allow_pickle", False))
        foreign = read_foreign(folder, read_settings(folder), self.shapes, allow_pickle=allow)
        return represent(foreign, self.shapes, self.weight, "tiny", **options)  # type: ignore[arg-type]

    def logits(self, folder: Path) -> torch.Tensor:
        """Return the logits of the model under an adapter that PEFT reads, and leave the model as it was."""
        adapted = PeftModel.from_pretrained(self.model, str(folder))
        try:
            with torch.no_grad():
                return adapted(input_ids=IDS).logits
        finally:
            adapted.unload()

    def plain(self) -> torch.Tensor:
        """Return the logits without an adapter."""
        with torch.no_grad():
            return self.model(input_ids=IDS).logits


@pytest.fixture(scope="session")
def tinies(tiny_bases: dict[str, Path]) -> Mapping[str, Tiny]:
    """The tiny models of four architectures, loaded once."""
    found = {}
    for name, path in tiny_bases.items():
        base = describe(path, name=str(path), model_id=str(path), origin="folder")
        found[name] = Tiny(load_base(base, device="cpu").model, base_shapes(base), path)
    return found


Write = Callable[..., Path]


@pytest.fixture(scope="session")
def write_lora() -> Write:
    """Write a PEFT folder from tensors (by PEFT's names) and settings of LoraConfig."""

    def write(folder: Path, tensors: Mapping[str, torch.Tensor], **settings: object) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **settings).save_pretrained(str(folder))
        save_file({name: item.contiguous() for name, item in tensors.items()}, folder / "adapter_model.safetensors")
        return folder

    return write


@pytest.fixture
def llama(tinies: Mapping[str, Tiny]) -> Tiny:
    """The tiny Llama."""
    return tinies["llama"]
