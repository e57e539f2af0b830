"""The simulated accelerator refuses what CUDA refuses, allows what CUDA allows, counts, and runs out of memory."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.devices import dealt, described, devices, pick_device, pick_dtype
from tests.sim_device import SimDevice, WrongDeviceError

pytestmark = pytest.mark.sim


def on_sim() -> torch.Tensor:
    return torch.ones(3, device="sim:0")


MIXED: dict[str, Callable[[], object]] = {
    "add": lambda: on_sim() + torch.ones(3),
    "add to the CPU's": lambda: torch.ones(3) + on_sim(),
    "add in place": lambda: torch.ones(3).add_(on_sim()),
    "add in place to a number": lambda: torch.tensor(1.0).add_(on_sim().sum()),
    "concatenate": lambda: torch.cat([on_sim(), torch.ones(3)]),
    "stack numbers": lambda: torch.stack([on_sim().sum(), torch.tensor(1.0)]),
    "multiply matrices": lambda: torch.nn.functional.linear(on_sim(), torch.ones(3, 3)),
    "embed": lambda: torch.nn.functional.embedding(torch.tensor([0]), on_sim()[:, None]),
    "gather": lambda: on_sim().gather(0, torch.tensor([0])),
    "compare": lambda: torch.equal(on_sim(), torch.ones(3)),
    "index by a mask": lambda: on_sim()[torch.tensor([True, False, True])],
    "put values": lambda: on_sim().index_put_((torch.tensor([0, 1], device="sim"),), torch.ones(2)),
    "draw": lambda: on_sim().normal_(generator=torch.Generator()),
    "float64": lambda: on_sim().double(),
    "pickle": lambda: __import__("pickle").dumps(on_sim()),
}


@pytest.mark.parametrize("name", MIXED)
def test_it_refuses(sim: SimDevice, name: str) -> None:
    with pytest.raises(WrongDeviceError):
        MIXED[name]()


def test_it_is_no_numpy_array(sim: SimDevice) -> None:
    for convert in (lambda: on_sim().numpy(), lambda: np.asarray(on_sim())):
        with pytest.raises(TypeError, match="can't convert sim:0 device type tensor to numpy"):
            convert()


def test_it_allows_what_cuda_allows(sim: SimDevice) -> None:
    a = on_sim()
    assert (a * torch.tensor(2.0)).tolist() == [2.0, 2.0, 2.0]
    assert a.masked_fill(a > 0, torch.tensor(5.0)).tolist() == [5.0, 5.0, 5.0]
    assert a[torch.tensor([0, 2])].tolist() == [1.0, 1.0]
    a[:2] = torch.zeros(2)
    assert a.cpu().tolist() == [0.0, 0.0, 1.0] and type(a.cpu()) is torch.Tensor
    assert torch.arange(3, device="sim").tolist() == [0, 1, 2] and torch.eye(2, device="sim").shape == (2, 2)
    assert torch.zeros_like(a, device="cpu").device.type == "cpu"


def test_gradients_are_those_of_the_cpu(sim: SimDevice) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4))
    model[2].weight = model[0].weight  # tied, which the move must keep
    x = torch.randn(5, 4)
    model(x).square().mean().backward()
    wanted = [item.grad.clone() for item in model.parameters() if item.grad is not None]
    model.zero_grad()
    model.to("sim:0")
    assert model[2].weight is model[0].weight
    loss = model(x.to("sim")).square().mean()
    loss.backward()
    found = [item.grad.cpu() for item in model.parameters() if item.grad is not None]
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(found, wanted, strict=True))
    assert loss.device == torch.device("sim", 0)


def test_it_counts_what_makes_the_host_wait(sim: SimDevice) -> None:
    a = on_sim()
    with sim.counted() as waits:
        float(a.sum()), a.tolist(), a.nonzero(), a[a > 0], torch.ones(3).to("sim"), a.add(1)
    assert waits == {"read": 2, "size": 2, "upload": 1}


def test_it_runs_out_of_memory_and_frees_it(sim: SimDevice) -> None:
    with sim.limited(10_000):
        held = torch.zeros(2_000, device="sim")
        with pytest.raises(torch.OutOfMemoryError, match="SIM out of memory"):
            torch.zeros(1_000, device="sim")
        view = held[:10]
        del held
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(1_000, device="sim")  # the view keeps all of it
        del view
        assert torch.zeros(1_000, device="sim").sum() == 0 and sim.peak == 8_000 and sim.refusals == 2


def test_icmlora_finds_it(sim: SimDevice) -> None:
    assert devices() == ("sim", "cpu") and pick_device(None) == torch.device("sim")
    assert [item.name for item in described()] == ["sim:0", "cpu"]
    assert dealt(None, 3) is None and dealt("cpu", 1) == "cpu"  # there is one of each
    with pytest.raises(UsageError, match="no device 'sim:1'"):
        pick_device("sim:1")
    assert pick_dtype("auto", torch.device("sim:0")) == torch.float32
    sim.bf16 = True
    try:
        assert pick_dtype("auto", torch.device("sim:0")) == torch.bfloat16
    finally:
        sim.bf16 = False
