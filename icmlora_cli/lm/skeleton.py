"""The modules of a base model and the shapes of its parameters, without its weights."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from icmlora_cli.errors import CorruptFile
from icmlora_cli.lm.load import quiet_transformers
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.foreign.check import BaseModule, BaseShapes


def base_shapes(base: Base) -> BaseShapes:
    """Return what an adapter of this base can be on; the model is built without memory for its weights.

    Args:
        base: a recorded base.

    Raises:
        CorruptFile: if its configuration cannot be read.
    """
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(base.path, local_files_only=True)
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFile(
            f"the configuration of base model {base.name} cannot be read: {str(error).strip().splitlines()[0]}",
            where=str(base.path),
            hint=f"icmlora base show {base.name} --verify",
        ) from error
    return shapes_of(model)


def shapes_of(model: PreTrainedModel) -> BaseShapes:
    """Return the modules of a model that have a weight matrix, and the shapes of all its parameters."""
    output = model.get_output_embeddings()
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    modules: dict[str, BaseModule] = {}
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind is None:
            continue
        rows, columns = (int(size) for size in module.weight.shape)
        if kind != "linear":  # both keep the weight as [in, out]
            rows, columns = columns, rows
        modules[name] = BaseModule(kind, rows, columns, tied=tied and (module is output or kind == "embedding"))
    parameters = {name: tuple(item.shape) for name, item in model.named_parameters(remove_duplicate=False)}
    return BaseShapes(modules, parameters)


def _kind(module: torch.nn.Module) -> str | None:
    if type(module).__name__ == "Conv1D":
        return "conv1d"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    return "linear" if isinstance(module, torch.nn.Linear) else None
