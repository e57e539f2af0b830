"""What can be said of an adapter by its weights: norms, effective rank, likeness to others, difference to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icmlora_cli.errors import UsageError
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.compare import AdapterComparison, compare, inner, norm
from icmlora_cli.weights.foreign.open import open_adapter
from icmlora_cli.weights.layout import layers_of
from icmlora_cli.weights.lowrank import effective_rank, singular_values
from icmlora_cli.weights.registered import read_last
from icmlora_cli.workflows.adapters.named import find_named


@dataclass(frozen=True)
class LayerFacts:
    """One layer of an adapter; layer None gathers the modules outside of the stack.

    Args:
        layer: The index of the layer.
        modules: how many of its modules the adapter is on.
        norm: Frobenius norm of its delta-W.
        effective_rank: mean over its modules, of the singular values' entropy.
    """

    layer: int | None
    modules: int
    norm: float
    effective_rank: float


@dataclass(frozen=True)
class AdapterNeighbour:
    """Another adapter, and the cosine of the two delta-W as vectors."""

    task: str
    key: str
    cosine: float


@dataclass(frozen=True)
class AdapterFacts:
    """An adapter by its weights.

    Args:
        task: whose it is.
        key: The key of the adapter's record.
        ranks: how many modules have which rank.
        dtypes: The dtypes of its factors.
        norm: Frobenius norm of all delta-W.
        effective_rank: mean over its modules.
        layers: from the first to the last.
        nearest: other adapters of the same base weights, the most alike first.
    """

    task: str
    key: str
    ranks: Mapping[int, int]
    dtypes: tuple[str, ...]
    norm: float
    effective_rank: float
    layers: tuple[LayerFacts, ...]
    nearest: tuple[AdapterNeighbour, ...]


@dataclass(frozen=True)
class Side:
    """One side of a difference: what it was asked for as, and its adapter."""

    name: str
    adapter: Adapter


@dataclass(frozen=True)
class Difference:
    """Two adapters of one base, the second measured against the first.

    Args:
        first: what is compared with.
        second: what is compared.
        only_first: modules that the second lacks.
        only_second: modules that the first lacks.
        comparison: error of the second relative to the first's delta-W, and their cosine.
    """

    first: Side
    second: Side
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    comparison: AdapterComparison


def facts(store: AdapterStore, record: AdapterRecord, *, nearest: int = 3) -> AdapterFacts:
    """Return what can be said of the last checkpoint of an adapter.

    Args:
        store: the registry's adapters.
        record: the adapter.
        nearest: how many others to name; 0 reads no others.

    Raises:
        CorruptFileError: if it, or one that it is compared with, is not what its manifest says.
    """
    adapter = read_last(store, record)
    by_layer: dict[int | None, list[str]] = {}
    for module, layer in layers_of(adapter.factors).items():
        by_layer.setdefault(layer, []).append(module)
    spectra = {module: singular_values(adapter, module) for module in adapter.factors}
    effective = {module: effective_rank(values) for module, values in spectra.items()}
    ranks = [item.rank for item in adapter.factors.values()]
    layers = [
        LayerFacts(
            layer,
            len(modules),
            float(sum(spectra[module].square().sum() for module in modules)) ** 0.5,
            _mean([effective[module] for module in modules]),
        )
        for layer, modules in sorted(by_layer.items(), key=lambda item: -1 if item[0] is None else item[0])
    ]
    return AdapterFacts(
        task=record.task,
        key=record.key,
        ranks={rank: ranks.count(rank) for rank in sorted(set(ranks))},
        dtypes=tuple(sorted({str(item.lora_a.dtype).removeprefix("torch.") for item in adapter.factors.values()})),
        norm=norm(adapter),
        effective_rank=_mean(list(effective.values())),
        layers=tuple(layers),
        nearest=_nearest(store, record, adapter, nearest) if nearest > 0 else (),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _nearest(store: AdapterStore, record: AdapterRecord, adapter: Adapter, count: int) -> tuple[AdapterNeighbour, ...]:
    own, found = norm(adapter), []
    for other in store.all(record.base):
        if other.weight_hash != record.weight_hash or other.folder == record.folder:
            continue
        there = read_last(store, other)
        both = sum(inner(adapter, there, module) for module in adapter.factors)
        size = own * norm(there)
        found.append(AdapterNeighbour(other.task, other.key, both / size if size else 0.0))
    return tuple(sorted(found, key=lambda item: (-item.cosine, item.task, item.key))[:count])


def difference(store: AdapterStore, first: str, second: str) -> Difference:
    """Compare two adapters.

    Args:
        store: the registry's adapters.
        first: a task's name (its newest adapter), a key, or a PEFT folder.
        second: The other adapter, named in the same way.

    Raises:
        CorruptFileError: if one is damaged.
        NotFoundError: if there is no such adapter.
        UsageError: if they are of different bases, or a name is that of adapters of several bases.
    """
    one, two = _side(store, first), _side(store, second)
    for module in set(one.adapter.factors) & set(two.adapter.factors):
        a, b = one.adapter.factors[module], two.adapter.factors[module]
        if (a.lora_a.shape[1], a.lora_b.shape[0]) != (b.lora_a.shape[1], b.lora_b.shape[0]):
            raise UsageError(
                f"{module} has another shape in {second}: the two are of different base models",
                hint="compare adapters of one base; icmlora adapter list names it",
            )
    return Difference(
        one,
        two,
        tuple(sorted(set(one.adapter.factors) - set(two.adapter.factors))),
        tuple(sorted(set(two.adapter.factors) - set(one.adapter.factors))),
        compare(two.adapter, one.adapter),
    )


def _side(store: AdapterStore, name: str) -> Side:
    named = find_named(store, name)
    return Side(name, open_adapter(named.folder, None) if named.record is None else read_adapter(named.folder))
