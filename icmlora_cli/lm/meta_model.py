"""The modules of a base model, the shapes of its parameters and where it keeps them, without its weights."""

from collections.abc import Iterable

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.load import quiet_transformers
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.foreign.check import BaseModule, BaseShapes
from icmlora_cli.weights.stored.checkpoint import ModelCheckpoint, model_files
from icmlora_cli.weights.stored.shards import read_shard


def base_shapes(base: Base) -> BaseShapes:
    """Return what an adapter of this base can be on; the model is built without memory for its weights.

    Args:
        base: a recorded base.

    Raises:
        CorruptFileError: if its configuration cannot be read.
    """
    return shapes_of(_skeleton(base))


def checkpoint_of(base: Base) -> ModelCheckpoint:
    """Return what a base's files hold of its parameters, by their headers.

    Args:
        base: a recorded base.

    Raises:
        CorruptFileError: if its configuration or a header cannot be read, or a file is missing.
    """
    shards = tuple(read_shard(path) for path in model_files(base.path))
    model = _skeleton(base)
    keys = [item.name for shard in shards for item in shard.tensors]
    return ModelCheckpoint(base.path, shards, _stored(model, keys), shapes_of(model), _tied(model))


def _skeleton(base: Base) -> PreTrainedModel:
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(base.path, local_files_only=True)
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"the configuration of base model {base.name} cannot be read: {str(error).strip().splitlines()[0]}",
            where=str(base.path),
            hint=f"icmlora base show {base.name} --verify",
        ) from error
    return model


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


def _stored(model: PreTrainedModel, keys: Iterable[str]) -> dict[str, str]:
    """Return the key under which a checkpoint keeps each parameter, as transformers finds it when it loads one.

    What it computes from several tensors, or splits, has no key.
    """
    wanted = model.state_dict()
    transforms = get_model_conversion_mapping(model)
    renamings = [item for item in transforms if isinstance(item, WeightRenaming)]
    converters = [item for item in transforms if isinstance(item, WeightConverter)]
    found = {}
    for key in keys:
        name, converted = rename_source_key(key, renamings, converters, model.base_model_prefix, wanted)
        if name not in wanted and key in wanted:  # it was not meant
            name, converted = key, None
        if name in wanted and converted is None:
            found[name] = key
    return found


def _tied(model: PreTrainedModel) -> tuple[str, str] | None:
    """Return the names of the input's and the output's embedding where the two are one parameter."""
    output, names = model.get_output_embeddings(), {module: name for name, module in model.named_modules()}
    if output is None or output.weight is not model.get_input_embeddings().weight:
        return None
    return f"{names[model.get_input_embeddings()]}.weight", f"{names[output]}.weight"


def _kind(module: torch.nn.Module) -> str | None:
    if type(module).__name__ == "Conv1D":
        return "conv1d"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    return "linear" if isinstance(module, torch.nn.Linear) else None
