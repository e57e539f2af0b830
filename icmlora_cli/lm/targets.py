"""Which modules of an architecture a LoRA goes on when the recipe says ``auto``."""

from collections.abc import Sequence

import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers import PreTrainedModel

from icmlora_cli.errors import UsageError
from icmlora_cli.weights.layout import Layout, ModuleShape, ordered

# the choice for architectures of which PEFT has none
OWN = {
    "gemma3_text": ["q_proj", "v_proj"],
    "florence2": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "qkv", "proj"],
}


def _is_linear(module: torch.nn.Module) -> bool:
    # packed layers keep torch's class, or have its sizes
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D" or hasattr(module, "out_features")


def target_modules(model: PreTrainedModel, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Return the module name endings that get a LoRA.

    Args:
        model: the base model.
        wanted: ``auto`` for PEFT's own choice for the architecture, and for Florence-2 the linear layers of all its
            stacks (ICM-LoRA, arXiv 2501.17635, whose targets these are); else the endings.

    Raises:
        UsageError: if there is no default for the architecture, or an ending matches nothing, or a convolution.
    """
    if wanted == "auto":
        kind = str(model.config.model_type)
        known = dict(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING) | OWN
        if kind not in known:
            raise UsageError(
                f"no default target modules for the architecture {kind!r}",
                hint="name them in the recipe, for example target_modules: [q_proj, v_proj]",
            )
        wanted = known[kind]
    endings = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    modules = dict(model.named_modules())
    for ending in endings:
        found = [name for name in modules if name == ending or name.endswith(f".{ending}")]
        other = next((name for name in found if not _is_linear(modules[name])), None)
        if other is not None:
            raise UsageError(
                f"{other} is a {type(modules[other]).__name__}, and a LoRA goes on linear layers only",
                hint=f"leave {ending} out of target_modules",
            )
        if not found:
            leaves = sorted(
                {name.rsplit(".", 1)[-1] for name in modules if name.endswith(("proj", "attn", "fc1", "fc2"))}
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
    return Layout(ordered(shapes), turned)


def module_shape(module: torch.nn.Module) -> tuple[int, int]:
    """Return how many numbers a module gives and how many it takes, also where its weight is packed."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    assert isinstance(module.weight, torch.Tensor)
    rows, columns = module.weight.shape
    return (columns, rows) if type(module).__name__ == "Conv1D" else (rows, columns)
