"""Adding an adapter's delta-W to a model's own weights, for good or for a while."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.weights.adapter import Adapter

PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def packed(weight: torch.nn.Parameter) -> bool:
    """Tell whether a weight is quantised, so that nothing can be added to its numbers.

    A quantised weight has integers, or is of a subclass of ``Parameter`` (bitsandbytes), or wraps other tensors
    (torchao, quanto). The tensors of a device that is written in Python are of a subclass too, and are plain numbers.
    """
    kind = type(weight)
    subclass = kind is not torch.nn.Parameter and issubclass(kind, torch.nn.Parameter)
    return weight.dtype not in PLAIN or subclass or is_traceable_wrapper_subclass(weight)


def fitting(model: torch.nn.Module, adapter: Adapter, name: str) -> tuple[torch.nn.Parameter, bool]:
    """Return a module's weight, and whether it is kept as [in, out], as GPT-2's are but for its output layer.

    Raises:
        CorruptFileError: if the module is missing, or has another shape than the adapter's factors.
    """
    try:
        module = model.get_submodule(name)
        weight = module.weight
    except AttributeError as error:
        raise CorruptFileError(f"the base model has no module {name}: the adapter is of another base") from error
    assert isinstance(weight, torch.nn.Parameter)
    turned = type(module).__name__ == "Conv1D"
    item = adapter.factors[name]
    shape = (int(item.lora_b.shape[0]), int(item.lora_a.shape[1]))
    oriented = shape[::-1] if turned else shape
    own = (module.out_features, module.in_features) if packed(weight) else tuple(weight.shape)
    if own != oriented:
        raise CorruptFileError(f"{name} is {own} in the base and {oriented} in the adapter")
    return weight, turned


def check_fits(model: torch.nn.Module, adapter: Adapter) -> None:
    """Check that a model has an adapter's modules, in its shapes.

    Raises:
        CorruptFileError: if a module is missing or has another shape.
    """
    for name in adapter.factors:
        fitting(model, adapter, name)


def _shared(model: torch.nn.Module, adapter: Adapter) -> list[torch.nn.Module]:
    """Return those of an adapter's modules whose weight is another module's too, as a tied output layer's is."""
    weights = [getattr(module, "weight", None) for module in model.modules()]
    owners = Counter(id(weight) for weight in weights if weight is not None)
    found = [model.get_submodule(name) for name in adapter.factors]
    return [module for module in found if owners[id(module.weight)] > 1]


def merge(model: torch.nn.Module, adapter: Adapter) -> None:
    """Add the adapter to the model's weights in place; the sum is made in fp32 and kept in the weights' dtype.

    A module that shares its weight with another gets one of its own, since an adapter is on the one and not the other.

    Raises:
        CorruptFileError: if a module is missing or has another shape; the model is then unchanged.
        UnsupportedAdapterError: if a weight is quantised; the model is then unchanged.
    """
    check_fits(model, adapter)
    for name in adapter.factors:
        if packed(fitting(model, adapter, name)[0]):
            raise UnsupportedAdapterError(
                f"{name} of the base is quantised, and nothing can be added to it",
                hint="give the same model in bf16 with --base; or use the adapter beside the base, unmerged",
            )
    for module in _shared(model, adapter):
        assert isinstance(module.weight, torch.nn.Parameter)
        module.weight = torch.nn.Parameter(module.weight.detach().clone(), requires_grad=module.weight.requires_grad)
    found = [(name, *fitting(model, adapter, name)) for name in adapter.factors]
    with torch.no_grad():
        for name, weight, turned in found:
            delta = adapter.delta(name)
            oriented = delta.T if turned else delta
            weight.copy_((weight.float() + oriented.to(weight.device)).to(weight.dtype))


@contextmanager
def merged(model: torch.nn.Module, adapter: Adapter | None) -> Iterator[None]:
    """Merge the adapter within the body, and put the very same weights back afterwards.

    On a base with quantised weights, to which nothing can be added, it works beside them instead, as a server has it.

    Args:
        model: the base model.
        adapter: what to merge; None leaves the base as it is.

    Raises:
        CorruptFileError: if the adapter does not fit.
    """
    if adapter is None:
        yield
        return
    found = [fitting(model, adapter, name)[0] for name in adapter.factors]
    if any(map(packed, found)):
        from icmlora_cli.weights.apply import applied, placed  # which imports this module

        with applied(model, placed(model, adapter)):
            yield
        return
    shared = [(module, module.weight) for module in _shared(model, adapter)]
    saved = [(weight, weight.detach().clone()) for weight in found]
    try:
        merge(model, adapter)
        yield
    finally:
        for module, weight in shared:
            module.weight = weight
        with torch.no_grad():
            for weight, original in saved:
                weight.copy_(original)
