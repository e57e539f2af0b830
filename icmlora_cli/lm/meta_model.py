"""The modules of a base model, the shapes of its parameters and where it keeps them, without its weights."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.architectures import auto_class, is_encoder_decoder
from icmlora_cli.lm.load import quiet_transformers
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.foreign.check import BaseModule, BaseShapes, ExpertMatrix
from icmlora_cli.weights.stored.checkpoint import ModelCheckpoint, model_files
from icmlora_cli.weights.stored.shards import read_shard

EXPERT = re.compile(r"\.experts\.(\d+)\..+\.weight$", re.ASCII)


def base_shapes(base: Base) -> BaseShapes:
    """Return what an adapter of this base can be on; the model is built without memory for its weights.

    Args:
        base: a recorded base.

    Raises:
        CorruptFileError: if its configuration cannot be read.
    """
    return folder_shapes(base.path, base.name)


def folder_shapes(folder: Path, name: str) -> BaseShapes:
    """Return what an adapter of a base can be on, by the ``config.json`` in a folder.

    Args:
        folder: The folder.
        name: The base's name, for messages.

    Raises:
        CorruptFileError: if the configuration cannot be read.
    """
    return shapes_of(_skeleton(folder, name))


def checkpoint_of(base: Base) -> ModelCheckpoint:
    """Return what a base's files hold of its parameters, by their headers.

    Args:
        base: a recorded base.

    Raises:
        CorruptFileError: if its configuration or a header cannot be read, or a file is missing.
    """
    shards = tuple(read_shard(path) for path in model_files(base.path))
    model = _skeleton(base.path, base.name)
    keys = [item.name for shard in shards for item in shard.tensors]
    names, shapes = _Names(model), shapes_of(model)
    stored, experts = _stored(names, keys), _experts(names, keys)
    own = {item.parameter: item.matrix for item in experts.values() if item.expert is None}
    alone = {name: (matrix.out_features, matrix.in_features) for name, matrix in own.items()}
    shapes = replace(shapes, parameters={**shapes.parameters, **alone}, experts=experts)
    return ModelCheckpoint(base.path, shards, {**stored, **{name: name for name in alone}}, shapes, _tied(model))


def _skeleton(folder: Path, name: str) -> PreTrainedModel:
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            model: PreTrainedModel = auto_class(config).from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(
            f"the configuration of base model {name} cannot be read: {str(error).strip().splitlines()[0]}",
            where=str(folder),
            hint=f"icmlora base show {name} --verify",
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
    task_type = "SEQ_2_SEQ_LM" if is_encoder_decoder(model.config) else "CAUSAL_LM"
    return BaseShapes(modules, parameters, task_type=task_type)


class _Names:
    """The names of tensors in a checkpoint, as transformers finds the model's parameters by them when it loads one."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.wanted = model, model.state_dict()
        self._renamed: dict[str, tuple[str, str | None]] = {}
        transforms = get_model_conversion_mapping(model)
        self.renamings = [item for item in transforms if isinstance(item, WeightRenaming)]
        self.converters = [item for item in transforms if isinstance(item, WeightConverter)]
        # pattern of an expert's matrix to its place among those that become one parameter, and how many they are
        self.stacked = {
            pattern: (index, len(item.source_patterns))
            for item in self.converters
            if _stacks(item)
            for index, pattern in enumerate(item.source_patterns)
        }

    def renamed(self, key: str) -> tuple[str, str | None]:
        """Return the parameter that a tensor becomes, and the pattern by which it is converted, if it is."""
        if key not in self._renamed:
            self._renamed[key] = rename_source_key(
                key, self.renamings, self.converters, self.model.base_model_prefix, self.wanted
            )
        return self._renamed[key]

    def expert(self, key: str) -> ExpertMatrix | None:
        """Return where a tensor is in its parameter, if it is the matrix of a single expert."""
        name, pattern = self.renamed(key)
        found = EXPERT.search(key)
        if found is None or pattern not in self.stacked or name not in self.wanted:
            return None
        (place, count), shape = self.stacked[pattern], self.wanted[name].shape
        if len(shape) != 3 or int(found[1]) >= shape[0] or shape[1] % count:
            return None
        rows = shape[1] // count
        return ExpertMatrix(BaseModule("linear", rows, shape[2]), name, int(found[1]), place * rows)


def _stacks(converter: WeightConverter) -> bool:
    """Tell whether a conversion stacks experts' matrices, first those of a kind, then the kinds below each other."""
    steps = [(type(step), getattr(step, "dim", None)) for step in converter.operations]
    whole = [(MergeModulelist, 0), (Concatenate, 1)]
    return steps == whole[: 1 if len(converter.source_patterns) == 1 else 2] and len(converter.target_patterns) == 1


def _stored(names: _Names, keys: Iterable[str]) -> dict[str, str]:
    """Return the key under which a checkpoint keeps each parameter, as transformers finds it when it loads one.

    What it computes from several tensors, or splits, has no key.
    """
    found = {}
    for key in keys:
        name, converted = names.renamed(key)
        if name not in names.wanted and key in names.wanted:  # it was not meant
            name, converted = key, None
        if name in names.wanted and converted is None:
            found[name] = key
    return found


def _experts(names: _Names, keys: Iterable[str]) -> dict[str, ExpertMatrix]:
    """Return the matrices of single experts by their modules' names before transformers 5, which checkpoints still use.

    Args:
        names: The names of the model's parameters.
        keys: What the base's files hold.
    """
    if not names.stacked:
        return {}
    alone = {item: key for key in keys if (item := names.expert(key)) is not None}
    found = {}
    for key in dict.fromkeys((*revert_weight_conversion(names.model, dict(names.wanted)), *alone.values())):
        item = names.expert(key)
        if item is not None:
            own = alone.get(item)
            found[key.removesuffix(".weight")] = item if own is None else ExpertMatrix(item.matrix, own)
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
