"""An adapter beside a model's weights, which are never touched: its product is added to what each module gives.

The order of the operations and their number formats are those of PEFT's ``lora.Linear.forward``, so that the outputs
are its outputs, bit for bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.merge import fitting

Hook = Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


def placed(model: torch.nn.Module, adapter: Adapter) -> Adapter:
    """Return the adapter with its factors where the model's weights are, once it has been seen to fit.

    Raises:
        CorruptFileError: if the model lacks a module, or has another shape there.
    """
    factors = {}
    for name, item in adapter.factors.items():
        device = fitting(model, adapter, name)[0].device
        factors[name] = Factors(lora_a=item.lora_a.to(device), lora_b=item.lora_b.to(device))
    return replace(adapter, factors=factors)


@contextmanager
def applied(model: torch.nn.Module, adapter: Adapter | None) -> Iterator[None]:
    """Let the model run with the adapter within the body.

    Args:
        model: the base model.
        adapter: one that ``placed`` gave for it; None leaves the base as it is.
    """
    handles = []
    try:
        for name, item in ({} if adapter is None else adapter.factors).items():
            assert adapter is not None
            hook = _hook(item, adapter.scaling(name))
            handles.append(model.get_submodule(name).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(item: Factors, scaling: float) -> Hook:
    linear = torch.nn.functional.linear

    def add(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        seen = linear(args[0].to(item.lora_a.dtype), item.lora_a)  # (B, T, r)
        return (output + linear(seen, item.lora_b) * scaling).to(output.dtype)  # (B, T, out)

    return add
