"""What says that memory does not suffice, on each device; and what happens then."""

import pytest
import torch

from icmlora_cli.errors import DeviceMemoryError
from icmlora_cli.lm.devices import MicroBatch, is_out_of_memory, upload

CPU = torch.device("cpu")
ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.0 GB, other allocations: 1.0 GB, max allowed: 9.0 GB)."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
    MemoryError(),
)


@pytest.mark.parametrize("error", ERRORS)
def test_what_each_device_says_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_torch_says_it_of_the_cpu() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    calls = []

    def run(size: int) -> None:
        calls.append(size)
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        MicroBatch(CPU).whole("work", 8, run)
    assert calls == [8]


def test_rows_are_halved_and_the_size_is_remembered_for_each_kind_of_work() -> None:
    notes: list[str] = []
    micro_batch, sizes = MicroBatch(CPU, notes.append), list[int]()

    def needs(items: "list[int]") -> int:
        sizes.append(len(items))
        return torch.empty(len(items) << 58 if len(items) > 3 else 1, dtype=torch.uint8).numel() + sum(items)

    parts = list(micro_batch.parts("work", list(range(10)), needs))  # type: ignore[arg-type]
    assert [part for part, _ in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [result - 1 for _, result in parts] == [3, 12, 21, 9]
    assert sizes == [10, 5, 3, 3, 3, 1] and micro_batch.rows == {"work": 3}
    assert notes == [
        "memory of cpu does not suffice for 10 rows at once: 5 (work)",
        "memory of cpu does not suffice for 5 rows at once: 3 (work)",
    ]
    assert micro_batch.whole("other", 10, lambda size: size) == 10


def test_one_row_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DeviceMemoryError, match="fewest rows") as caught:
        MicroBatch(CPU).whole("work", 3, lambda size: torch.empty(1 << 60, dtype=torch.uint8))
    assert caught.value.exit_code == 1 and "--device cpu" in str(caught.value.hint)


def test_what_is_on_its_device_is_not_copied() -> None:
    item = torch.ones(3)
    assert upload(item, CPU) is item
