"""Which modules of an architecture a LoRA goes on when the recipe says ``auto``."""

from collections.abc import Sequence

import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers import PreTrainedModel

from icmlora_cli.errors import UsageError
from icmlora_cli.weights.layout import Layout, ModuleShape


def target_modules(model: PreTrainedModel, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Return the module name endings that get a LoRA.

    Args:
        model: the base model.
        wanted: ``auto`` for PEFT's own choice for the architecture, else the endings.

    Raises:
        UsageError: if PEFT knows no default for the architecture, or an ending matches nothing.
    """
    if wanted == "auto":
        kind = str(model.config.model_type)
        known = dict(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING) | {"gemma3_text": ["q_proj", "v_proj"]}
        if kind not in known:
            raise UsageError(
                f"no default target modules for the architecture {kind!r}",
                hint="name them in the recipe, for example target_modules: [q_proj, v_proj]",
            )
        wanted = known[kind]
    endings = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    names = [name for name, _ in model.named_modules()]
    for ending in endings:
        if not any(name == ending or name.endswith(f".{ending}") for name in names):
            leaves = sorted(
                {name.rsplit(".", 1)[-1] for name in names if name.endswith(("proj", "attn", "fc1", "fc2"))}
            )
            raise UsageError(
                f"the base model has no module that ends in {ending!r}",
                hint=f"choose among {', '.join(leaves)}" if leaves else None,
            )
    return endings


def target_layout(model: PreTrainedModel, wanted: str | Sequence[str]) -> Layout:
    """Return the modules that get an adapter, with their shapes, in a codec's order.

    Args:
        model: the base model.
        wanted: ``auto`` or module name endings.

    Raises:
        UsageError: if PEFT knows no default for the architecture, or an ending matches nothing.
    """
    endings = target_modules(model, wanted)
    shapes: list[ModuleShape] = []
    turned = False
    for name, module in model.named_modules():
        if any(name == ending or name.endswith(f".{ending}") for ending in endings):
            turned = turned or type(module).__name__ == "Conv1D"  # GPT-2 keeps these weights as [in, out]
            shapes.append(ModuleShape(name, *module_shape(module)))
    return Layout(tuple(sorted(shapes, key=lambda item: (item.layer, item.kind, item.name))), turned)


def module_shape(module: torch.nn.Module) -> tuple[int, int]:
    """Return how many numbers a module gives and how many it takes, also where its weight is packed."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    assert isinstance(module.weight, torch.Tensor)
    rows, columns = module.weight.shape
    return (columns, rows) if type(module).__name__ == "Conv1D" else (rows, columns)
