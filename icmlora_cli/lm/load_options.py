"""How a base is loaded beyond its own files: packed weights, the attention's kernel, several devices."""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from icmlora_cli.errors import UsageError

if TYPE_CHECKING:
    from icmlora_cli.config.harvest import HarvestRecipe

Attention = Literal["auto", "eager", "sdpa", "flash_attention_2"]
Quantise = Literal["nf4", "int8"]
PACKAGES = {"nf4": "bitsandbytes", "int8": "torchao", "flash_attention_2": "flash_attn"}
BITS = {"nf4": 4, "int8": 8}


@dataclass(frozen=True)
class LoadOptions:
    """How a base is loaded.

    Args:
        attn_implementation: the kernel of the attention; ``auto`` leaves the choice to transformers.
        device_map: ``auto`` spreads the layers over all devices (and main memory, where these are too small), by
            accelerate; None puts the whole base on one.
        quantise: ``nf4`` packs the linear layers into 4 bits with bitsandbytes, as QLoRA does (arXiv 2305.14314);
            ``int8`` into 8 bits with torchao; None leaves them as they are in the base's files.
    """

    attn_implementation: Attention = "auto"
    device_map: Literal["auto"] | None = None
    quantise: Quantise | None = None

    @classmethod
    def of(cls, recipe: "HarvestRecipe") -> "LoadOptions":
        """Return the options that a harvest recipe holds."""
        return cls(recipe.attn_implementation, recipe.device_map, recipe.quantise)

    def check(self, *, device: str | None, packed: str | None) -> None:
        """Check that what is asked for can be done here.

        Args:
            device: the device that was asked for by name; None where none was.
            packed: how the base's own files are quantised; None where they are not.

        Raises:
            UsageError: if a package is missing, or two settings exclude each other.
        """
        if self.quantise is not None and packed is not None:
            raise UsageError(
                f"quantise: {self.quantise}: the base is quantised already ({packed})",
                hint="leave quantise out of the harvest recipe",
            )
        if self.device_map is not None and device is not None:
            raise UsageError(
                f"device_map: {self.device_map} spreads the base over all devices, and --device {device} names one",
                hint="leave one of the two out",
            )
        for setting in (self.attn_implementation, self.quantise):
            package = PACKAGES.get(str(setting))
            if package is not None and importlib.util.find_spec(package) is None:
                raise UsageError(
                    f"{setting} needs {package}, which is not installed",
                    hint=f"pip install {package.replace('_', '-')}; or another value in the harvest recipe",
                )

    def arguments(self, device: torch.device, dtype: torch.dtype, *, packed: bool) -> dict[str, object]:
        """Return the arguments of ``from_pretrained`` for these options.

        Args:
            device: the device of a base that is not spread.
            dtype: the dtype in which packed weights are computed with.
            packed: whether the base's own files are quantised.
        """
        arguments: dict[str, object] = {}
        if self.attn_implementation != "auto":
            arguments["attn_implementation"] = self.attn_implementation
        if self.quantise == "nf4":
            from transformers import BitsAndBytesConfig

            arguments["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        elif self.quantise == "int8":
            from torchao.quantization import Int8WeightOnlyConfig
            from transformers import TorchAoConfig

            arguments["quantization_config"] = TorchAoConfig(Int8WeightOnlyConfig())
        if self.device_map is not None:
            arguments["device_map"] = self.device_map
        elif packed or self.quantise is not None:
            # packed weights are put where they are used as they are loaded: some kinds cannot be moved afterwards
            arguments["device_map"] = device
        return arguments


def keep_differentiable(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew in a pass without gradients, on CPUs with AVX-512.

    Through weights that are packed so, it later gives no gradients, and says nothing: an adapter that is trained after
    a first one was scored would learn nothing beyond the last layers.

    Args:
        model: the base, with or without such weights.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - torch types it as a tensor or module
