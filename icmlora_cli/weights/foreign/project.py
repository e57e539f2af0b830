"""From a foreign adapter to a LoRA of delta-W: what can be said exactly is; the rest is refused, or fitted, or dropped.

DoRA (Liu et al., 2024, https://huggingface.co/papers/2402.09353, eq. 5; PEFT's ``tuners/lora/dora.py``) makes of a
weight W [out, in] the weight diag(m / ||W + s B A||_row) (W + s B A), whose difference to W has full rank.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.foreign.check import BaseShapes
from icmlora_cli.weights.foreign.read import ForeignAdapter
from icmlora_cli.weights.lowrank import fitted

WeightOf = Callable[[str], torch.Tensor]
"""Gives a parameter of the base by its full name, in fp32 and the base's own orientation."""
EXACT = 1e-6  # relative error up to which fp32 counts as exact


@dataclass(frozen=True)
class AdapterPart:
    """What became of one part of a foreign adapter.

    Args:
        name: the module, or the parameter of the base.
        what: ``LoRA``, ``DoRA``, ``lora bias``, ``trained bias``, ``saved module``, ``embedding LoRA``, ``tied output``
            or ``trained tokens``.
        kept: ``exact``, ``fitted`` or ``dropped``.
        error: ||kept - wanted|| / ||wanted|| of delta-W (of the parameter's change, where it is no matrix).
        rank: The rank of what is kept of the part; 0 where nothing is.
    """

    name: str
    what: str
    kept: str
    error: float
    rank: int = 0


@dataclass
class _Represented:
    """Factors and what became of each part, as they are gathered."""

    factors: dict[str, Factors] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    parts: list[AdapterPart] = field(default_factory=list)

    def drop(self, name: str, what: str, *, changes: bool = True) -> None:
        """Leave a part out; where it changes nothing, nothing is lost."""
        self.parts.append(AdapterPart(name, what, "dropped" if changes else "exact", 1.0 if changes else 0.0))


def represent(
    foreign: ForeignAdapter,
    base: BaseShapes,
    weight_of: WeightOf,
    base_model: str,
    *,
    approximate: bool = False,
    rank: int | None = None,
) -> tuple[Adapter, tuple[AdapterPart, ...]]:
    """Return a foreign adapter as a LoRA, and what became of each of its parts.

    Factors that are kept exactly are the very tensors of the file.

    Args:
        foreign: as it was read, for this base.
        base: The shapes of the base's modules.
        weight_of: gives the base's weights; asked only where parts need them.
        base_model: the name that the LoRA gets.
        approximate: fit or drop what no LoRA can hold, instead of refusing it.
        rank: The rank of the fits; None takes the adapter's own.

    Raises:
        CorruptFileError: if a delta-W is not finite in fp32.
        UnsupportedAdapterError: if parts cannot be held and ``approximate`` is not set, nothing is left, or it is on
            single experts.
    """
    made = _Represented()
    _modules(foreign, base, weight_of, rank, made)
    _embeddings(foreign, made)
    _biases(foreign, made)
    _whole(foreign, base, weight_of, rank, made)
    inexact = [part for part in made.parts if part.error > EXACT]
    if inexact and not approximate:
        raise _refusal(inexact, str(foreign.file.parent))
    if not made.factors:
        raise UnsupportedAdapterError(
            "nothing of the adapter can be held by a LoRA",
            where=str(foreign.file.parent),
            hint="all of it is on embeddings or on an output layer that is tied to them; train one on other modules",
        )
    settings = foreign.settings
    adapter = Adapter(
        base_model=base_model,
        alpha=settings.alpha,
        factors=made.factors,
        fan_in_fan_out=base.fan_in_fan_out,
        use_rslora=settings.use_rslora,
        alphas={name: alpha for name, alpha in made.alphas.items() if alpha != settings.alpha},
    )
    _check_finite(adapter, str(foreign.file))
    return adapter, tuple(made.parts)


def _refusal(inexact: Sequence[AdapterPart], where: str) -> UnsupportedAdapterError:
    counted = Counter(part.what for part in inexact)
    first = {part.what: part.name for part in reversed(inexact)}
    told = ", ".join(
        f"{what} of {first[what]}" + (f" and {n - 1} more" if n > 1 else "") for what, n in counted.items()
    )
    return UnsupportedAdapterError(
        f"a LoRA cannot hold all of this adapter: {told}",
        where=where,
        hint="the same command with --approximate fits or drops these parts, and says how much of delta-W is lost",
    )


def _plain(foreign: ForeignAdapter, name: str) -> torch.Tensor:
    tensor = foreign.tensors[name]
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _modules(
    foreign: ForeignAdapter, base: BaseShapes, weight_of: WeightOf, rank: int | None, made: _Represented
) -> None:
    settings, magnitudes = foreign.settings, foreign.parts.of("magnitude")
    for module, name in foreign.parts.of("A").items():
        pair = Factors(_plain(foreign, name), _plain(foreign, foreign.parts.of("B")[module]))
        facts = base.modules.get(module)
        if facts is None:
            raise UnsupportedAdapterError(
                f"{module} is on a single expert, and a loaded base has one parameter for all of them",
                where=str(foreign.file.parent),
                hint=f"icmlora merge {foreign.file.parent} -o merged/ writes the base with it; give that folder as "
                "the base then",
            )
        if facts.kind == "embedding":
            raise CorruptFileError(
                f"{module} is an embedding of the base, and lora_A is of a linear layer",
                where=str(foreign.file),
                hint="give the base that it was trained on with --base",
            )
        if facts.tied:
            made.drop(module, "tied output", changes=_changes(pair) or module in magnitudes)
        elif module in magnitudes:
            weight = _oriented(weight_of(f"{module}.weight"), facts.kind)
            magnitude = foreign.tensors[magnitudes[module]]
            delta = dora_delta(weight, pair, settings.scaling(module), magnitude)
            _fit(module, "DoRA", delta, rank or pair.rank, foreign, made)
        else:
            made.factors[module] = pair
            made.alphas[module] = settings.alpha_of(module)
            made.parts.append(AdapterPart(module, "LoRA", "exact", 0.0, pair.rank))


def _oriented(weight: torch.Tensor, kind: str) -> torch.Tensor:
    return weight.T if kind == "conv1d" else weight


def _changes(pair: Factors) -> bool:
    return bool(pair.lora_a.any()) and bool(pair.lora_b.any())


def dora_delta(weight: torch.Tensor, pair: Factors, scaling: float, magnitude: torch.Tensor) -> torch.Tensor:
    """Return what DoRA adds to a weight, fp32 [out, in].

    Args:
        weight: W of the base, [out, in].
        pair: the factors.
        scaling: s.
        magnitude: m, [out] or with further dimensions of 1.
    """
    turned = weight.float() + scaling * (pair.lora_b.float() @ pair.lora_a.float())
    factor = magnitude.float().reshape(-1) / torch.linalg.norm(turned, dim=1)
    delta: torch.Tensor = factor[:, None] * turned - weight.float()
    return delta


def _fit(module: str, what: str, delta: torch.Tensor, rank: int, foreign: ForeignAdapter, made: _Represented) -> None:
    pair, error = fitted(delta, rank)
    made.factors[module] = pair
    made.alphas[module] = math.sqrt(pair.rank) if foreign.settings.use_rslora else float(pair.rank)  # scaling 1
    made.parts.append(AdapterPart(module, what, "fitted" if error > EXACT else "exact", error, pair.rank))


def _embeddings(foreign: ForeignAdapter, made: _Represented) -> None:
    for module, name in foreign.parts.of("embedding A").items():
        pair = Factors(foreign.tensors[name], foreign.tensors[foreign.parts.of("embedding B")[module]])
        scaled = module in foreign.parts.of("magnitude")
        made.drop(module, "embedding LoRA", changes=_changes(pair) or scaled)
    for module in foreign.parts.of("tokens"):
        made.drop(module, "trained tokens")


def _biases(foreign: ForeignAdapter, made: _Represented) -> None:
    for module, name in foreign.parts.of("lora bias").items():
        made.drop(f"{module}.lora_B.bias", "lora bias", changes=bool(foreign.tensors[name].any()))


def _whole(
    foreign: ForeignAdapter, base: BaseShapes, weight_of: WeightOf, rank: int | None, made: _Represented
) -> None:
    """Take in parameters that the adapter replaces: as the base's own, as a fit of the difference, or not at all."""
    for parameter, name in foreign.parts.whole.items():
        module, _, ending = parameter.rpartition(".")
        what = "saved module" if ending == "weight" else "trained bias"
        if parameter not in base.parameters:
            made.drop(parameter, what)
            continue
        tensor, own = foreign.tensors[name], weight_of(parameter)
        if torch.equal(tensor, own.to(tensor.dtype)):  # a copy that was not trained, in the dtype of the training
            made.drop(parameter, what, changes=False)
            continue
        facts = base.modules.get(module)
        fits = facts is not None and facts.kind != "embedding" and not facts.tied and module not in made.factors
        if facts is None or ending != "weight" or not fits:
            made.drop(parameter, what)
        else:
            delta = _oriented(tensor.float(), facts.kind) - _oriented(own, facts.kind)
            _fit(module, what, delta, rank or foreign.settings.rank, foreign, made)


def _check_finite(adapter: Adapter, where: str) -> None:
    for module, item in adapter.factors.items():
        # an upper bound of ||delta-W||, so that no [out, in] matrix is made
        bound = abs(adapter.scaling(module)) * float(item.lora_a.double().norm()) * float(item.lora_b.double().norm())
        if not bound < torch.finfo(torch.float32).max:
            raise CorruptFileError(
                f"{module}: delta-W is too large for fp32",
                where=where,
                hint="its training diverged: take an earlier checkpoint",
            )


def errors_by_module(parts: Sequence[AdapterPart]) -> Mapping[str, float]:
    """Return the relative error of every part that is not exact, by its name."""
    return {part.name: part.error for part in parts if part.kept != "exact"}
