"""Merging: equal to PEFT's, and undone without a trace."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, Factors, write_adapter
from icmlora_cli.weights.apply import applied, placed
from icmlora_cli.weights.merge import merge, merged
from icmlora_cli.workflows.base.pull import pull
from tests.random_lora import fitting_base


def random_adapter(model: torch.nn.Module, base: Base) -> Adapter:
    rng = torch.Generator().manual_seed(5)
    conv = base.architecture.startswith("GPT2")
    ending = "c_attn" if conv else "q_proj"
    factors = {}
    for name, module in model.named_modules():
        if name.endswith(ending):
            rows, columns = module.weight.shape
            out, inn = (columns, rows) if conv else (rows, columns)
            factors[name] = Factors(torch.randn(3, inn, generator=rng) * 0.2, torch.randn(out, 3, generator=rng) * 0.2)
    return Adapter(base.model_id, 6.0, factors, fan_in_fan_out=conv)


def test_merge_equals_peft(tiny_base: Base, tmp_path: Path) -> None:
    loaded = load_base(tiny_base, device="cpu")
    ids = torch.arange(2, 22)[None]
    plain = loaded.model(input_ids=ids).logits.detach()
    adapter = random_adapter(loaded.model, tiny_base)
    write_adapter(tmp_path / "adapter", adapter, fitting_base(adapter))
    with merged(loaded.model, adapter):
        ours = loaded.model(input_ids=ids).logits.detach()
    assert torch.equal(loaded.model(input_ids=ids).logits, plain)
    assert not torch.allclose(ours, plain, atol=1e-3)
    theirs = PeftModel.from_pretrained(loaded.model, str(tmp_path / "adapter"))
    assert torch.allclose(theirs(input_ids=ids).logits, ours, atol=1e-5)


def test_weights_come_back_after_an_error(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    before = {name: item.clone() for name, item in loaded.model.state_dict().items()}
    adapter = random_adapter(loaded.model, llama_base)
    with pytest.raises(ZeroDivisionError), merged(loaded.model, adapter):
        _ = 1 / 0
    assert all(torch.equal(item, before[name]) for name, item in loaded.model.state_dict().items())


def test_a_misfit_changes_nothing(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    before = {name: item.clone() for name, item in loaded.model.state_dict().items()}
    good = random_adapter(loaded.model, llama_base)
    name = sorted(good.factors)[-1]
    bad = Adapter("x", 1.0, dict(good.factors) | {name: Factors(torch.ones(1, 3), torch.ones(5, 1))})
    with pytest.raises(CorruptFileError):
        merge(loaded.model, bad)
    assert all(torch.equal(item, before[key]) for key, item in loaded.model.state_dict().items())


def test_an_output_layer_tied_to_the_embedding_gets_a_weight_of_its_own(
    tiny_bases: dict[str, Path], home: Home
) -> None:
    """As in training, and in PEFT: the adapter is on the output layer alone."""
    loaded = load_base(pull(str(tiny_bases["qwen3"]), home, offline=True), device="cpu")
    model, embedding = loaded.model, loaded.model.get_input_embeddings().weight
    assert model.lm_head.weight is embedding
    out, inn = embedding.shape
    pair = Factors(torch.randn(3, inn) * 0.2, torch.randn(out, 3) * 0.2)
    adapter = Adapter(loaded.base.model_id, 6.0, {"lm_head": pair})
    ids = torch.arange(2, 22)[None]
    plain, before = model(input_ids=ids).logits.detach(), embedding.detach().clone()
    with applied(model, placed(model, adapter)):
        beside = model(input_ids=ids).logits.detach()
    with merged(model, adapter):
        within = model(input_ids=ids).logits.detach()
        assert torch.equal(embedding, before)
    assert torch.allclose(within, beside, atol=1e-4) and not torch.allclose(within, plain, atol=1e-3)
    assert model.lm_head.weight is embedding and torch.equal(model(input_ids=ids).logits, plain)
    merge(model, adapter)
    assert torch.allclose(model(input_ids=ids).logits, within, atol=1e-6) and torch.equal(embedding, before)
