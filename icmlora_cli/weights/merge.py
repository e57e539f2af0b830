"""Adding an adapter's delta-W to a model's own weights, for good or for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from icmlora_cli.errors import CorruptFile
from icmlora_cli.weights.adapter import Adapter


def _found(model: torch.nn.Module, name: str) -> tuple[torch.nn.Parameter, bool]:
    """Return a module's weight, and whether it is kept as [in, out], as GPT-2's are but for its output layer."""
    try:
        module = model.get_submodule(name)
        weight = module.weight
    except AttributeError as error:
        raise CorruptFile(f"the base model has no module {name}: the adapter is of another base") from error
    assert isinstance(weight, torch.nn.Parameter)
    return weight, type(module).__name__ == "Conv1D"


def check_fits(model: torch.nn.Module, adapter: Adapter) -> None:
    """Check that a model has an adapter's modules, in its shapes.

    Raises:
        CorruptFile: if a module is missing or has another shape.
    """
    for name, item in adapter.factors.items():
        weight, turned = _found(model, name)
        own, given = tuple(weight.shape), (item.lora_B.shape[0], item.lora_A.shape[1])
        if own != (given[::-1] if turned else given):
            raise CorruptFile(f"{name} is {own} in the base, and the adapter's delta-W is {given}")


def merge(model: torch.nn.Module, adapter: Adapter) -> None:
    """Add the adapter to the model's weights in place; the sum is made in fp32 and kept in the weights' dtype.

    Raises:
        CorruptFile: if a module is missing or has another shape; the model is then unchanged.
    """
    check_fits(model, adapter)
    with torch.no_grad():
        for name in adapter.factors:
            (weight, turned), delta = _found(model, name), adapter.delta(name)
            oriented = delta.T if turned else delta
            weight.copy_((weight.float() + oriented.to(weight.device)).to(weight.dtype))


@contextmanager
def merged(model: torch.nn.Module, adapter: Adapter | None) -> Iterator[None]:
    """Merge the adapter within the body, and put the very same weights back afterwards.

    Args:
        model: the base model.
        adapter: what to merge; None leaves the base as it is.

    Raises:
        CorruptFile: if the adapter does not fit.
    """
    if adapter is None:
        yield
        return
    saved = [(weight, weight.detach().clone()) for weight, _ in (_found(model, name) for name in adapter.factors)]
    try:
        merge(model, adapter)
        yield
    finally:
        with torch.no_grad():
            for weight, original in saved:
                weight.copy_(original)
