"""How much each number of a harvested adapter counts in its reconstruction, by the gradients that its harvest saw."""

from collections.abc import Sequence

import torch

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.errors import CorruptFileError, UsageError
from icmlora_cli.registry.adapters import AdapterStore, harvest_again
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.sensitivity import read_sensitivity
from icmlora_cli.workflows.train.inputs import Harvested, chosen_frame, frame_of

SETTING = "objective.sensitivity"


def check(harvested: Sequence[Harvested], recipe: TrainRecipe) -> None:
    """Check that every harvested adapter has what a recipe with ``objective.sensitivity`` needs.

    Raises:
        UsageError: If there is no adapter, one has no recorded gradients, or the basis is not the frame that they are
            of.
    """
    if not harvested:
        raise UsageError(
            f"{SETTING} is of harvested adapters, and there is none", hint=f"icmlora harvest, or {SETTING}: 0"
        )
    for item in harvested:
        record, name = item.record, item.task.name
        if record.imported is not None:
            raise UsageError(
                f"{SETTING}: the adapter of {name} is imported, and nobody recorded the gradients of its training",
                hint=f"leave {name} out of --tasks, or {SETTING}: 0",
            )
        if frame_of(record) is None:
            raise UsageError(
                f"{SETTING}: the adapter of {name} is a plain LoRA; the gradients of its A and B say nothing of the "
                "cores that are reconstructed, since many A and B give the same delta-W",
                hint=f"icmlora harvest --tasks {name} --recipe harvest/frame, or {SETTING}: 0",
            )
    spec = chosen_frame(harvested, recipe.data)
    for item in harvested:
        record, name = item.record, item.task.name
        if frame_of(record) != spec:
            raise UsageError(
                f"{SETTING}: the gradients of {name} are of cores in its harvest's frame, and the basis is another",
                hint=f"data.basis: frame, and adapters of one frame, or {SETTING}: 0",
            )
        if record.sensitivity is None:
            raise UsageError(
                f"{SETTING}: the adapter of {name} was harvested by a version that did not record gradients",
                hint=f"{harvest_again(record)}, or {SETTING}: 0",
            )


def error_weights(
    item: Harvested, store: AdapterStore, codec: Codec, scale: torch.Tensor, share: float
) -> torch.Tensor:
    """Return how much the squared error of each normalised core counts, fp32 [modules, R, R].

    An error e of a normalised core is one of e * scale of the core itself, whose square the mean squared gradient g^2
    weights; so the weight is g^2 * scale^2. It is divided by its mean over the adapter, and mixed with 1 by ``share``.

    Args:
        item: The task, whose adapter has passed ``check``.
        store: Where its file is.
        codec: The basis, which is the frame of the harvest.
        scale: The factor of each module's normalised cores, fp32 [modules].
        share: The share of the weights that is of the gradients, above 0; the rest is 1.

    Raises:
        CorruptFileError: If the file is missing, changed, or not of the adapter's modules.
    """
    path = store.checked_sensitivity(item.record)
    squares = {} if path is None else read_sensitivity(path)
    mask, width = codec.mask(), codec.width
    weights = torch.zeros(mask.shape)
    for index, module in enumerate(codec.layout.modules):
        square = squares.get(module.name)
        if square is None or square.shape != (width, width):
            raise CorruptFileError(
                f"the recorded gradients of task {item.task.name!r} are not those of {module.name} in its frame",
                where=str(path),
                hint=harvest_again(item.record),
            )
        weights[index] = square * scale[index].square()
    mean = weights[mask].mean()
    if not mean > 0:
        raise CorruptFileError(
            f"the recorded gradients of task {item.task.name!r} are all zero",
            where=str(path),
            hint=harvest_again(item.record),
        )
    return share * weights / mean + (1.0 - share)
