"""A core for each row gives each row what merging its adapter would, and gradients reach the cores."""

import pytest
import torch

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.targets import target_modules
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.merge import merged


def test_each_row_has_its_own_adapter(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    endings = target_modules(loaded.model, "auto")
    names = [name for name, _ in loaded.model.named_modules() if name.endswith(tuple(f".{end}" for end in endings))]
    assert names
    rng = torch.Generator().manual_seed(0)
    transposed = [type(loaded.model.get_submodule(name)).__name__ == "Conv1D" for name in names]
    left, right = [], []
    for name, turned in zip(names, transposed, strict=True):
        shape = loaded.model.get_submodule(name).weight.shape
        out, inn = (shape[1], shape[0]) if turned else shape
        left.append(torch.linalg.qr(torch.randn(out, 4, generator=rng)).Q)
        right.append(torch.linalg.qr(torch.randn(inn, 4, generator=rng)).Q.T)
    cores = torch.randn(3, len(names), 4, 4, generator=rng).requires_grad_()
    ids = torch.arange(5, 26).reshape(3, 7)
    rows = RowCores(loaded.model, names, left, right)
    with rows.applied(cores):
        found = loaded.model(input_ids=ids).logits
    found.square().mean().backward()
    assert cores.grad is not None and bool((cores.grad.flatten(2).abs().sum(2) > 0).all())
    for row in range(3):
        factors = {
            name: Factors(lora_a=right[at], lora_b=left[at] @ cores[row, at].detach()) for at, name in enumerate(names)
        }
        adapter = Adapter("", 4.0, factors, fan_in_fan_out=transposed[0])
        with merged(loaded.model, adapter), torch.no_grad():
            wanted = loaded.model(input_ids=ids[row : row + 1]).logits[0]
        assert torch.allclose(found[row], wanted, atol=1e-4)
    with torch.no_grad():
        plain = loaded.model(input_ids=ids).logits
        with rows.applied(torch.zeros_like(cores)):
            assert torch.equal(loaded.model(input_ids=ids).logits, plain)
        assert torch.equal(loaded.model(input_ids=ids).logits, plain)  # nothing stays behind


def test_a_frame_of_another_base_is_refused(llama_base: Base) -> None:
    model = load_base(llama_base, device="cpu").model
    name = "model.layers.0.self_attn.q_proj"
    with pytest.raises(CorruptFileError, match="another shape"):
        RowCores(model, [name], [torch.zeros(9, 2)], [torch.zeros(2, 32)])
    with pytest.raises(CorruptFileError, match="no module"):
        RowCores(model, ["model.layers.9.q"], [torch.zeros(32, 2)], [torch.zeros(2, 32)])
