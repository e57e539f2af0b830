"""A simulated accelerator, ``sim:0``: its tensors lie in this machine's memory, and are as strict as those of a GPU.

On a machine without an accelerator, code that leaves one tensor on the CPU works all the same. Here it fails as it
would on CUDA: a tensor of ``sim:0`` is not mixed with one of the CPU, but for a 0-dim one in a pointwise operation; it
becomes no numpy array; it draws nothing from a generator of the CPU; and a boolean mask of the CPU does not index it.
As on MPS, there is no float64. What would make the host wait for a GPU is counted (``SimDevice.waits``), and an
allocation beyond ``SimDevice.limited`` raises ``torch.OutOfMemoryError``.

How it is made: ``_setup_privateuseone_for_python_backend`` gives PyTorch's spare device the name ``sim``, its hooks and
a device guard, which the autograd engine needs. A few kernels of that device (``KERNELS``) make its tensors, so that no
dispatch mode is needed, which would not reach the threads of the backward pass. The tensors are a wrapper subclass
(``SimTensor``), whose ``__torch_dispatch__`` checks the devices of an operation and lets the CPU compute it. A boxed
fallback of the device alone would not do: Python can make no plain tensor of it with given strides, and PyTorch does
not call a fallback written in Python with a tensor subclass.

What it does not show: kernels that a device lacks, numbers that differ between devices, and streams.
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch

NAME = "sim"
aten = torch.ops.aten
MOVES = {aten.copy_.default, aten._to_copy.default}  # between devices
READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}  # what gives Python a value
KERNELS = (  # those that are called without a tensor of the device, or from below its ``__torch_dispatch__``
    aten.empty.memory_format, aten.empty_strided.default, aten.copy_.default, aten.arange.default, aten.arange.start,
    aten.arange.start_step, aten.eye.default, aten.eye.m,
)  # fmt: skip
WHOLE = {  # made of others, and computed as a whole all the same where they come as they are: it saves time
    aten.linear.default, aten.matmul.default, aten.scaled_dot_product_attention.default, aten.layer_norm.default,
}  # fmt: skip
SIZED = {  # the sizes of their results are known only when the device has computed them
    aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.unique_dim.default,
    aten.unique_consecutive.default, aten.bincount.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
SCALARS = {  # besides pointwise operations, those that take a 0-dim tensor of the CPU for a number
    aten.fill_.Tensor, aten.fill.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.where.self,
} | INDEXES  # fmt: skip


class WrongDeviceError(RuntimeError):
    """What CUDA would refuse, too."""


@dataclass
class SimDevice:
    """The state of ``sim:0``.

    Args:
        usable: Whether it is there for ``icmlora``; elsewhere the tests of one process would find it.
        bf16: Whether it says that it computes in bfloat16.
        limit: The bytes that tensors may take in all; None sets no limit.
        waits: How often the host had to wait, by what made it: ``read`` (a value), ``size`` (of a result), ``upload``.
        peak: The most bytes that tensors took at once, of those that were made under a limit.
        refusals: How many allocations went beyond the limit.
    """

    usable: bool = False
    bf16: bool = False
    limit: int | None = None
    waits: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    refusals: int = 0
    _held: Counter[int] = field(default_factory=Counter)  # tensors by the address of their storage
    _bytes: int = 0

    def allocate(self, raw: torch.Tensor) -> None:
        """Count a tensor's memory until the last tensor in the same storage is gone.

        Raises:
            torch.OutOfMemoryError: If there is not enough.
        """
        if self.limit is None:
            return
        storage = raw.untyped_storage()
        key, size, held = storage._cdata, storage.nbytes(), self._held
        if not held[key]:
            if self._bytes + size > self.limit:
                self.refusals += 1
                raise torch.OutOfMemoryError(
                    f"SIM out of memory. Tried to allocate {size} bytes beside {self._bytes} of {self.limit}"
                )
            self._bytes += size
            self.peak = max(self.peak, self._bytes)
        held[key] += 1
        weakref.finalize(raw, self._free, held, key, size)

    def _free(self, held: Counter[int], key: int, size: int) -> None:
        held[key] -= 1
        if held[key] == 0 and held is self._held:
            self._bytes -= size

    @contextlib.contextmanager
    def limited(self, limit: int) -> Iterator["SimDevice"]:
        """Set a limit on the bytes that are allocated from here on."""
        self.limit, self._bytes, self.peak, self.refusals, self._held = limit, 0, 0, 0, Counter()
        try:
            yield self
        finally:
            self.limit = None

    @contextlib.contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Count from zero what makes the host wait within the body."""
        self.waits.clear()
        yield self.waits


SIM = SimDevice()


class SimTensor(torch.Tensor):
    """A tensor of ``sim:0``; ``raw`` is the CPU's tensor that has its numbers."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "SimTensor":
        if raw.dtype in (torch.float64, torch.complex128):
            raise WrongDeviceError(f"{NAME}:0 has no {raw.dtype}, as MPS has none")
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return _compute(op, args, kwargs or {})

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"{self.raw!r} on {NAME}:0"

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.cpu().numpy()
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return the CPU's storage, by whose address one sees which tensors share memory."""
        return self.raw.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __reduce_ex__(self, protocol: int) -> Any:
        raise WrongDeviceError(f"a tensor of {NAME}:0 is pickled: it would be read on no other machine")

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)


def _compute(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Check that an operation's tensors may meet, compute it on the CPU, and return results on the right device."""
    if (parts := _decomposed(op, args, kwargs)) is not NotImplemented:
        return parts
    leaves = [*_leaves(args), *_leaves(tuple(kwargs.values()))]
    cpu = [item for item in leaves if isinstance(item, torch.Tensor) and not isinstance(item, SimTensor)]
    sims = [item for item in leaves if isinstance(item, SimTensor)]
    if sims:
        _check(op, args, cpu, leaves)
    there = kwargs["device"] if kwargs.get("device") is not None else torch.device(NAME, 0)
    _count(op, args, kwargs, there)
    known = {id(item.raw): item for item in sims}
    lowered = {key: value for key, value in kwargs.items() if key != "pin_memory"}

    def lower(item: Any) -> Any:
        if isinstance(item, torch.device) and item.type == NAME:
            return torch.device("cpu")
        return item.raw if isinstance(item, SimTensor) else item

    def lift(item: Any) -> Any:
        if not isinstance(item, torch.Tensor):
            return item
        if id(item) in known:  # an operation in place
            return known[id(item)]
        if there.type != NAME or any(item is one for one in cpu):
            return item
        SIM.allocate(item)
        if op.is_view:  # a view of a tensor that was made outside of inference mode is none of inference mode
            with torch.inference_mode(sims[0].is_inference()):
                return SimTensor(item)
        return SimTensor(item)

    shapes = [item.raw.shape for item in sims]
    result = op(*_mapped(lower, args), **{key: _mapped(lower, value) for key, value in lowered.items()})
    if [item.raw.shape for item in sims] != shapes:
        raise NotImplementedError(f"{op} resizes its result, which a wrapper cannot: make it a kernel of its own")
    return _mapped(lift, result)


def _leaves(item: Any) -> Iterator[Any]:
    """Yield what is in nested tuples and lists."""
    if isinstance(item, tuple | list):
        for part in item:
            yield from _leaves(part)
    else:
        yield item


def _mapped(function: Callable[[Any], Any], item: Any) -> Any:
    """Return nested tuples and lists with a function applied to what is in them."""
    if isinstance(item, tuple | list):
        parts = (_mapped(function, part) for part in item)
        return tuple(parts) if isinstance(item, tuple) else list(parts)
    return function(item)


def _decomposed(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an operation made of others gives; those of inference tensors come here as they are."""
    if not _is_composite(op) or op in WHOLE:
        return NotImplemented
    return op._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)


@cache
def _is_composite(op: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")


def _check(op: Any, args: tuple[Any, ...], cpu: list[torch.Tensor], leaves: list[Any]) -> None:
    """Refuse what CUDA refuses.

    Raises:
        WrongDeviceError: If the operation's tensors are of both devices, or random numbers are drawn from the CPU's
            generator.
    """
    if any(isinstance(item, torch.Generator) for item in leaves):
        raise WrongDeviceError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({op})")
    if op in MOVES or not cpu:
        return
    if op in INDEXES and isinstance(args[0], SimTensor):
        indices = [item for item in args[1] if isinstance(item, torch.Tensor) and not isinstance(item, SimTensor)]
        if any(item.dtype in (torch.bool, torch.uint8) for item in indices):
            raise WrongDeviceError(f"a mask of the CPU indexes a tensor of {NAME}:0 ({op})")
        SIM.waits["upload"] += len(indices)
        cpu = [item for item in cpu if not any(item is index for index in indices)]
    pointwise = torch.Tag.pointwise in op.tags or op in SCALARS
    written = args[0] if op._schema.is_mutable else None
    if all(pointwise and item.dim() == 0 and item is not written for item in cpu):
        return
    raise WrongDeviceError(
        f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({op})"
    )


def _count(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], there: torch.device) -> None:
    """Count what makes the host wait."""
    if op in READS:
        SIM.waits["read"] += 1
    elif op in SIZED:
        SIM.waits["size"] += 1
    elif op in INDEXES:
        masks = [item for item in args[1] if isinstance(item, SimTensor) and item.dtype in (torch.bool, torch.uint8)]
        SIM.waits["size"] += len(masks)
    elif op is aten._to_copy.default and there.type == "cpu":
        SIM.waits["read"] += 1
    elif op is aten.copy_.default and not kwargs.get("non_blocking") and not (len(args) > 2 and args[2]):
        target, source = isinstance(args[0], SimTensor), isinstance(args[1], SimTensor)
        if target != source:
            SIM.waits["upload" if target else "read"] += 1


class _Module:
    """``torch.sim``: the functions that PyTorch, its libraries and ``icmlora`` call on a device's module."""

    @dataclass(frozen=True)
    class Properties:
        name: str
        total_memory: int

    def is_available(self) -> bool:
        return SIM.usable

    def is_initialized(self) -> bool:
        return True

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return SIM.bf16

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def get_device_properties(self, device: object = None) -> Properties:
        return self.Properties("simulated", SIM.limit or 0)

    def empty_cache(self) -> None:
        """There is none: what is freed is the machine's again."""

    def synchronize(self, device: object = None) -> None:
        """Nothing to wait for: the CPU has computed it."""

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are drawn by the CPU, whose seed is set already."""

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        torch.set_rng_state(state)

    def device(self, device: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _is_in_bad_fork(self) -> bool:
        return False


_kept: list[torch.library.Library] = []  # kernels are taken off where their library is collected


def missing() -> str | None:
    """Return why this PyTorch has no simulated device; None where it has one."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # noqa: F401
    except ImportError:
        return f"torch {torch.__version__} cannot have a device that is written in Python (tested: 2.13)"
    return None


def install() -> SimDevice:
    """Give this process the device ``sim:0``, once; it stays until the process ends, and is usable in tests of it."""
    if _kept:
        return SIM
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    for op in KERNELS:
        name = op._schema.name.removeprefix("aten::") + (f".{op._schema.overload_name}".rstrip("."))
        library.impl(name, _kernel(op), "PrivateUse1")
    _kept.append(library)
    return SIM


@contextlib.contextmanager
def in_use() -> Iterator[SimDevice]:
    """Make ``sim:0`` the best device of this process within the body; torch's settings come back afterwards."""
    device = install()
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    repeatable = torch.are_deterministic_algorithms_enabled()
    # else Module.to makes new parameters, and tied weights are no longer tied: CUDA's keep their identity
    torch.__future__.set_swap_module_params_on_conversion(True)
    device.usable = True
    try:
        yield device
    finally:
        device.usable = device.bf16 = False
        torch.use_deterministic_algorithms(repeatable)
        torch.__future__.set_swap_module_params_on_conversion(swapped)


def _kernel(op: Any) -> Callable[..., Any]:
    return partial(lambda *args, op, **kwargs: _compute(op, args, kwargs), op=op)
