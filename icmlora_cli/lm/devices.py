"""The devices that torch computes on, and what differs between them; the only module that names one.

It knows ``cuda`` (ROCm too), ``xpu``, ``mps`` and ``cpu``, and whatever further accelerator a plugin of PyTorch adds,
such as ``npu``. ``docs/devices.md`` says what is computed where, in which numbers.
"""

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import TypeVar

import torch

from icmlora_cli.errors import DeviceMemoryError, UsageError

KINDS = ("cuda", "xpu", "mps")  # the best first
PINNED = ("cuda", "xpu")  # the kinds whose copies from pinned memory do not make the host wait
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# what errors say that are not torch.OutOfMemoryError: of MPS, of libraries under CUDA, of the CPU, of oneAPI
OUT_OF_MEMORY = (
    "out of memory",
    "ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
    "OUT_OF_DEVICE_MEMORY",
    "OUT_OF_HOST_MEMORY",
    "OUT_OF_RESOURCES",
)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Device:
    """A torch device, as ``doctor`` shows it.

    Args:
        name: The name for ``--device``.
        description: What it is.
        memory: Its memory in bytes; 0 if that is unknown.
        bf16: Whether it computes in bfloat16 natively.
    """

    name: str
    description: str
    memory: int
    bf16: bool


def devices() -> tuple[str, ...]:
    """Return the kinds of device found, the best first; ``cpu`` is always the last."""
    further = torch.accelerator.current_accelerator()
    kinds = KINDS if further is None or further.type in KINDS else (*KINDS, further.type)
    return (*(kind for kind in kinds if _available(kind)), "cpu")


def _available(kind: str) -> bool:
    return torch.backends.mps.is_available() if kind == "mps" else bool(_module(kind).is_available())


def _module(kind: str) -> ModuleType:
    """Return the module of a kind of device, such as ``torch.cuda``."""
    module: ModuleType = torch.get_device_module(kind)
    return module


def device_count(kind: str) -> int:
    """Return how many devices of a kind that was found there are."""
    return 1 if kind in ("mps", "cpu") else int(_module(kind).device_count())


def pick_device(name: str | None) -> torch.device:
    """Return the device to run on.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...; None takes the best one found.

    Raises:
        UsageError: If there is no such device.
    """
    found = devices()
    if name is None:
        return torch.device(found[0])
    kind, _, index = name.partition(":")
    wrong = kind not in found or (":" in name and (not index.isdecimal() or int(index) >= device_count(kind)))
    if wrong:
        raise UsageError(
            f"there is no device {name!r} on this machine",
            hint=f"--device {' or '.join(found)}, or leave it out for the best one (see: icmlora doctor)",
        )
    return torch.device(name)


def dealt(name: str | None, index: int) -> str | None:
    """Return the device of one of several processes: those of one kind are given out in turn.

    Args:
        name: The device that was asked for; None and a kind without a number leave a choice.
        index: The index of the process.
    """
    kind = devices()[0] if name is None else name
    count = device_count(kind) if kind in devices() and kind != "cpu" else 1
    return f"{kind}:{index % count}" if count > 1 else name


def bf16_supported(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively; of the CPU and of MPS it is not assumed."""
    if device.type in ("cpu", "mps"):
        return False
    if device.type == "xpu":
        return True
    module = _module(device.type)
    with module.device(device):
        return bool(module.is_bf16_supported(including_emulation=False))


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of a name; ``auto`` is bfloat16 where the device supports it, float32 elsewhere.

    Raises:
        UsageError: If the name is not known.
    """
    if name == "auto":
        return torch.bfloat16 if bf16_supported(device) else torch.float32
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {name!r}", hint=f"use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def described() -> tuple[Device, ...]:
    """Return all devices of this machine, the best first."""
    rows: list[Device] = []
    for kind in devices():
        if kind == "mps":
            rows.append(Device("mps", platform.machine(), machine_memory(), False))
        elif kind == "cpu":
            cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
            rows.append(Device("cpu", cores, machine_memory(), False))
        else:
            for index in range(device_count(kind)):
                facts = _module(kind).get_device_properties(index)
                bf16 = bf16_supported(torch.device(kind, index))
                rows.append(Device(f"{kind}:{index}", str(facts.name), int(facts.total_memory), bf16))
    return tuple(rows)


def machine_memory() -> int:
    """Return the bytes of this machine's memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; None of the CPU, and of a device that does not say."""
    count = None if device.type == "cpu" else getattr(_module(device.type), "mem_get_info", None)
    return None if count is None else int(count(device)[0])


def make_repeatable(device: torch.device) -> None:
    """Let torch choose operations that give the same bits each time, where the device has them.

    The CPU's do so anyway. Where a GPU has no such operation, torch takes the other one without a word.

    Args:
        device: The device that is to be used, before anything has been computed on it.
    """
    if device.type == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when it is first used
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", ".*does not have a deterministic implementation.*", UserWarning)


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on a device; the host does not wait for the copy where pinned memory allows that."""
    if device.type in PINNED:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


def release(device: torch.device) -> None:
    """Give memory that torch holds in reserve back to the device."""
    if device.type != "cpu":
        _module(device.type).empty_cache()


def _first(items: Sequence[T], run: Callable[[Sequence[T]], R], size: int) -> tuple[Sequence[T], R]:
    """Return the first items, ``size`` of them, with what ``run`` returns of them."""
    return items[:size], run(items[:size])


@dataclass
class MicroBatch:
    """How many rows fit into the memory of a device at once, by the kind of work, as running out of it has shown.

    Where an error says that memory did not suffice, the rows of a pass are halved, for that work and for as long as
    the base is loaded; what was cut off is computed in further passes, so that the result is the same but for rounding.

    Args:
        device: The device.
        on_note: Called with a sentence for the user where rows are halved.
    """

    device: torch.device
    on_note: Callable[[str], None] = lambda note: None
    rows: dict[str, int] = field(default_factory=dict)

    def whole(self, work: str, count: int, run: Callable[[int], T]) -> T:
        """Return what ``run`` returns, which is called again with half the rows where memory does not suffice.

        Args:
            work: The kind of work, such as ``training``.
            count: How many rows there are.
            run: Called with the number of rows that a pass may have; it starts from the beginning each time.

        Raises:
            DeviceMemoryError: If memory does not suffice for one row.
        """
        while True:
            size = min(count, self.rows.get(work, count))
            try:
                return run(size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size <= 1:
                    raise self._too_little(work, error) from error
            self._halve(work, size)  # here, where no traceback holds tensors any more

    def parts(self, work: str, items: Sequence[T], run: Callable[[Sequence[T]], R]) -> Iterator[tuple[Sequence[T], R]]:
        """Yield parts of the items, in order, with what ``run`` returns of each; all of them at once if they fit.

        Args:
            work: The kind of work, such as ``scoring``.
            items: The items of the rows.
            run: Called with a part; again with a smaller one where memory does not suffice.

        Raises:
            DeviceMemoryError: If memory does not suffice for one row.
        """
        start = 0
        while start < len(items):
            part, result = self.whole(work, len(items) - start, partial(_first, items[start:], run))
            yield part, result
            start += len(part)

    def _halve(self, work: str, size: int) -> None:
        self.rows[work] = (size + 1) // 2
        release(self.device)
        self.on_note(f"memory of {self.device} does not suffice for {size} rows at once: {self.rows[work]} ({work})")

    def _too_little(self, work: str, error: BaseException) -> DeviceMemoryError:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return DeviceMemoryError(
            f"the memory of {self.device} does not suffice for the fewest rows that go together ({work}): {first}",
            hint="a smaller base, shorter examples, a smaller batch_size, or --device cpu",
        )
