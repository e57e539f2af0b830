"""What a PEFT LoRA, as it was read, does to the parameters of its base: all that can be merged, and not only LoRA."""

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.weights.adapter import Factors
from icmlora_cli.weights.foreign.check import BaseShapes
from icmlora_cli.weights.foreign.read import ForeignAdapter
from icmlora_cli.weights.stored.changes import Added, OfExpert, OfExperts, Replaced, Rescaled, Steps, low_rank
from icmlora_cli.weights.stored.shards import Change


def foreign_steps(foreign: ForeignAdapter, base: BaseShapes) -> Steps:
    """Return what an adapter does to each parameter, in order: what it holds whole comes first.

    Args:
        foreign: as it was read, for this base.
        base: The shapes of the base's modules.

    Raises:
        CorruptFileError: if a linear layer's factors are on an embedding, or the other way round.
        UnsupportedAdapterError: if it changes what the base does not have, or trains single tokens.
    """
    tokens = foreign.parts.of("tokens")
    if tokens:
        raise UnsupportedAdapterError(
            f"the adapter trains single tokens of {next(iter(tokens))} (trainable_token_indices), which is not merged",
            where=str(foreign.file),
            hint="merge it with PEFT's merge_and_unload",
        )
    steps: dict[str, list[Change]] = {}
    slices: dict[str, list[OfExpert]] = {}
    for parameter, name in foreign.parts.whole.items():
        _check_there(parameter, foreign, base)
        steps[parameter] = [Replaced(foreign.tensors[name])]
    for first, second in (("A", "B"), ("embedding A", "embedding B")):
        for module, name in foreign.parts.of(first).items():
            pair = Factors(foreign.tensors[name], foreign.tensors[foreign.parts.of(second)[module]])
            change, expert = _of_factors(module, pair, first, foreign, base), base.experts.get(module)
            if expert is None or expert.expert is None:
                steps.setdefault(expert.parameter if expert else f"{module}.weight", []).append(change)
            else:
                part = OfExpert(expert.expert, expert.first, expert.matrix.out_features, change)
                slices.setdefault(expert.parameter, []).append(part)
    for parameter, parts in slices.items():
        steps.setdefault(parameter, []).append(OfExperts(tuple(parts)))
    for module, name in foreign.parts.of("lora bias").items():
        vector = foreign.settings.scaling(module) * foreign.tensors[name].float()
        if vector.any():
            _check_there(f"{module}.bias", foreign, base)
            steps.setdefault(f"{module}.bias", []).append(Added(vector))
    return steps


def _of_factors(module: str, pair: Factors, first: str, foreign: ForeignAdapter, base: BaseShapes) -> Change:
    found = base.matrix(module)
    assert found is not None  # ``check_shapes`` has seen to it
    kind = found.kind
    if (kind == "embedding") != (first == "embedding A"):
        raise CorruptFileError(
            f"{module} is {'an embedding' if kind == 'embedding' else 'no embedding'} of the base, and the adapter "
            "takes it for the other",
            where=str(foreign.file),
            hint="give the base that it was trained on with --base",
        )
    change = low_rank(pair, foreign.settings.scaling(module), kind)
    magnitude = foreign.parts.of("magnitude").get(module)
    if magnitude is None:
        return change
    return Rescaled(change, foreign.tensors[magnitude].float().reshape(-1), by_row=kind == "linear")


def _check_there(parameter: str, foreign: ForeignAdapter, base: BaseShapes) -> None:
    if parameter not in base.parameters:
        raise UnsupportedAdapterError(
            f"the adapter changes {parameter}, which the base does not have",
            where=str(foreign.file),
            hint="give the base that it was trained on with --base; where it is that, this part cannot be merged",
        )
