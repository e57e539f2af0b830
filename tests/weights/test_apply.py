"""An adapter beside the weights: PEFT's outputs bit for bit, and the weights untouched."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, Factors, write_adapter
from icmlora_cli.weights.apply import applied, placed
from tests.random_lora import fitting_base
from tests.weights.test_merge import random_adapter


def test_it_equals_peft_bit_for_bit(tiny_base: Base, tmp_path: Path) -> None:
    loaded = load_base(tiny_base, device="cpu")
    ids = torch.arange(2, 22)[None]
    before = {name: item.clone() for name, item in loaded.model.state_dict().items()}
    plain = loaded.model(input_ids=ids).logits
    adapter = random_adapter(loaded.model, tiny_base)
    write_adapter(tmp_path / "adapter", adapter, fitting_base(adapter))
    with applied(loaded.model, placed(loaded.model, adapter)):
        ours = loaded.model(input_ids=ids).logits
    assert torch.equal(loaded.model(input_ids=ids).logits, plain)
    assert all(torch.equal(item, before[name]) for name, item in loaded.model.state_dict().items())
    assert not torch.allclose(ours, plain, atol=1e-3)
    theirs = PeftModel.from_pretrained(loaded.model, str(tmp_path / "adapter"))
    assert torch.equal(theirs(input_ids=ids).logits, ours)


def test_a_base_in_bfloat16_equals_peft_too(llama_base: Base, tmp_path: Path) -> None:
    loaded = load_base(llama_base, device="cpu", dtype="bfloat16")
    ids = torch.arange(2, 22)[None]
    adapter = random_adapter(loaded.model, llama_base)
    write_adapter(tmp_path / "adapter", adapter, fitting_base(adapter))
    with applied(loaded.model, placed(loaded.model, adapter)):
        ours = loaded.model(input_ids=ids).logits
    assert ours.dtype == torch.bfloat16
    theirs = PeftModel.from_pretrained(loaded.model, str(tmp_path / "adapter"))
    assert torch.equal(theirs(input_ids=ids).logits, ours)


def test_nothing_stays_after_an_error(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    ids = torch.arange(2, 22)[None]
    plain = loaded.model(input_ids=ids).logits
    with pytest.raises(ZeroDivisionError), applied(loaded.model, random_adapter(loaded.model, llama_base)):
        _ = 1 / 0
    assert torch.equal(loaded.model(input_ids=ids).logits, plain)
    with applied(loaded.model, None):
        assert torch.equal(loaded.model(input_ids=ids).logits, plain)


def test_a_misfit_is_refused(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    (name, item), *_ = random_adapter(loaded.model, llama_base).factors.items()
    with pytest.raises(CorruptFileError, match="in the base and"):
        placed(loaded.model, Adapter("x", 1.0, {name: Factors(item.lora_a[:, 1:], item.lora_b)}))
    with pytest.raises(CorruptFileError, match="no module"):
        placed(loaded.model, Adapter("x", 1.0, {"no.such": item}))
