"""Does a foreign adapter fit this base? Asked of names and shapes alone, before any numbers are loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import PurePath

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError, WrongBaseError
from icmlora_cli.weights.foreign.config import CONFIG, LoraSettings
from icmlora_cli.weights.foreign.headers import SAVE_AGAIN, TensorEntry
from icmlora_cli.weights.foreign.keys import KeyParts

EXPERTS = re.compile(r"\.experts(\.|$)")
NEAREST = 2000  # modules that a missing one's name is compared with


@dataclass(frozen=True)
class BaseModule:
    """One module of a base model that has a weight matrix.

    Args:
        kind: ``linear``, ``conv1d`` (GPT-2's, [in, out]) or ``embedding``.
        out_features: rows of delta-W; of an embedding, its width.
        in_features: columns of delta-W; of an embedding, the vocabulary.
        tied: Whether its weight is another module's as well, so that a change of it would change both.
    """

    kind: str
    out_features: int
    in_features: int
    tied: bool = False


@dataclass(frozen=True)
class ExpertMatrix:
    """The matrix of a single expert, which a loaded model has in one parameter with those of the other experts.

    Args:
        matrix: Its shape, as that of a linear layer's weight.
        parameter: What holds it in the base's files: a tensor of its own, or one of all experts.
        expert: Its index in the first dimension of a tensor of all experts; None where it has its own.
        first: The first of its rows there, since gate and up projection can be one tensor.
    """

    matrix: BaseModule
    parameter: str
    expert: int | None = None
    first: int = 0


@dataclass(frozen=True)
class BaseShapes:
    """The modules of a base that can carry a LoRA, and the shapes of all its parameters.

    Args:
        modules: The modules of the loaded model that have a weight matrix, by name.
        parameters: The shapes of all parameters, by name.
        experts: The matrices of single experts that are no modules of the loaded model, by the name that each one's
            module had where it was one.
        task_type: What PEFT calls the task of an adapter of this base.
    """

    modules: Mapping[str, BaseModule]
    parameters: Mapping[str, tuple[int, ...]]
    experts: Mapping[str, ExpertMatrix] = field(default_factory=dict)
    task_type: str = "CAUSAL_LM"

    def matrix(self, name: str) -> BaseModule | None:
        """Return a module, or a single expert's matrix as one; None if the base has neither."""
        expert = self.experts.get(name)
        return self.modules.get(name) if expert is None else expert.matrix

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether its blocks keep their weights as [in, out]."""
        return any(item.kind == "conv1d" for item in self.modules.values())


def shapes_of_factors(parts: KeyParts, entries: Mapping[str, TensorEntry], settings: LoraSettings) -> BaseShapes:
    """Return the shapes that a base must have for an adapter to fit it."""
    kind = "conv1d" if settings.fan_in_fan_out else "linear"
    modules = {}
    for first, second, what in (("A", "B", kind), ("embedding A", "embedding B", "embedding")):
        for module, name in parts.of(first).items():
            a, b = entries[name].shape, entries[parts.of(second)[module]].shape
            if len(a) == len(b) == 2:  # anything else is refused next
                modules[module] = BaseModule(what, b[0], a[1])
            else:
                modules[module] = BaseModule(what, 0, 0)
    return BaseShapes(modules, {parameter: entries[name].shape for parameter, name in parts.whole.items()})


def check_name(settings: LoraSettings, known: tuple[str, ...], where: str) -> None:
    """Check that the adapter's configuration names this base, or none.

    Args:
        settings: What the adapter's configuration says.
        known: the base's names: alias, hub id, folder.
        where: the adapter's folder.

    Raises:
        WrongBaseError: if it names another.
    """
    wanted = settings.base_model.rstrip("/")
    whole = {_plain(name) for name in known if "/" in name or "\\" in name}  # an alias says less than a hub id
    if not wanted or wanted in known or _plain(wanted) in whole:
        return
    raise WrongBaseError(
        f"{CONFIG} says that the adapter is for {wanted[:200]}, and the base is {known[0]}",
        where=where,
        hint=f"--base {wanted[:200]}; or, where that is the same model under another name, --any-base-name (import and "
        f"merge), or that name in {CONFIG}",
    )


def _plain(name: str) -> str:
    """Return the last part of a hub id or path, as names are compared: case and separators do not count."""
    return re.sub(r"[-_. ]", "", PurePath(name.replace("\\", "/")).name.lower())


def check_shapes(
    parts: KeyParts, entries: Mapping[str, TensorEntry], settings: LoraSettings, base: BaseShapes, where: str
) -> None:
    """Check that every factor is on a module that the base has, with the shape and rank that it should have.

    Raises:
        CorruptFileError: if a pair does not fit together, or its rank is not the configuration's.
        UnsupportedAdapterError: if it is on single experts, and how the base keeps them is not known.
        WrongBaseError: if the base lacks a module, or has it in another shape.
    """
    found = {name: base.matrix(name) for kind in ("A", "embedding A") for name in parts.of(kind)}
    modules = {name: matrix for name, matrix in found.items() if matrix is not None}
    missing = [name for name in found if name not in modules]
    if missing:
        experts = EXPERTS.search(missing[0])
        if (
            experts
            and not base.experts
            and any(name.startswith(missing[0][: experts.start()]) for name in base.parameters)
        ):
            raise UnsupportedAdapterError(
                f"{missing[0]} is on a single expert, and the base keeps its experts as one parameter",
                where=where,
                hint="merge it with the transformers and PEFT that trained it (merge_and_unload), or train one on the "
                "attention's modules",
            )
        close = get_close_matches(missing[0], list(islice(chain(base.modules, base.experts), NEAREST)), n=1)
        raise WrongBaseError(
            f"the base has no module {missing[0]} ({len(missing)} of the adapter's are missing)",
            where=where,
            hint="give the base that it was trained on with --base"
            + (f"; this one's nearest module is {close[0]}" if close else ""),
        )
    for module, name in parts.of("A").items():
        a, b = entries[name].shape, entries[parts.of("B")[module]].shape
        _check_pair(module, a, b, settings, modules[module], where)
    for module, name in parts.of("embedding A").items():
        # lora_embedding_A is [r, vocabulary], lora_embedding_B [width, r]
        a, b = entries[name].shape, entries[parts.of("embedding B")[module]].shape
        _check_pair(module, a, b, settings, modules[module], where)
    for kind in ("lora bias", "magnitude"):
        for module, name in parts.of(kind).items():
            wanted = modules[module].out_features
            shape = entries[name].shape
            if shape.count(wanted) != 1 or sum(item != 1 for item in shape) > 1:
                raise WrongBaseError(
                    f"{name} is {list(shape)}, and {module} of the base has {wanted} rows",
                    where=where,
                    hint="give the base that it was trained on with --base",
                )
    for parameter, name in parts.whole.items():
        known = base.parameters.get(parameter)
        if known is not None and known != entries[name].shape:
            raise WrongBaseError(
                f"{name} is {list(entries[name].shape)}, and {parameter} of the base is {list(known)}",
                where=where,
                hint="its vocabulary was resized: save the base with its new tokens, and give that folder as --base"
                if known[1:] == entries[name].shape[1:]
                else "give the base that it was trained on with --base",
            )


def _check_pair(
    module: str, a: tuple[int, ...], b: tuple[int, ...], settings: LoraSettings, wanted: BaseModule, where: str
) -> None:
    if len(a) != 2 or len(b) != 2 or 0 in (*a, *b):
        raise CorruptFileError(
            f"{module}: lora_A is {list(a)} and lora_B {list(b)}; both should be matrices",
            where=where,
            hint="the adapter was not saved whole (ZeRO-3 and FSDP need their weights gathered): save it again",
        )
    if a[0] != b[1]:
        raise CorruptFileError(
            f"{module}: lora_A is {list(a)} and lora_B {list(b)}; their ranks differ", where=where, hint=SAVE_AGAIN
        )
    if (b[0], a[1]) != (wanted.out_features, wanted.in_features):
        raise WrongBaseError(
            f"{module}: the adapter changes a matrix of {b[0]} x {a[1]}, and the base's is "
            f"{wanted.out_features} x {wanted.in_features}",
            where=where,
            hint="give the base that it was trained on with --base",
        )
    if a[0] != settings.rank_of(module):
        raise CorruptFileError(
            f"{module}: its factors have rank {a[0]}, and {CONFIG} says {settings.rank_of(module)}",
            where=where,
            hint="weights and configuration are of different adapters, or rank_pattern is missing",
        )
