"""A quantised base, where the package that reads it is here: loaded, trained on, used beside, never merged into."""

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UnsupportedAdapterError
from icmlora_cli.lm.load import load_base, quiet_transformers
from icmlora_cli.lm.trainers import LoraTrainer
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, Factors, write_adapter
from icmlora_cli.weights.apply import applied, placed
from icmlora_cli.weights.merge import merge, merged
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.merge.merge import find_shares, run

pytestmark = pytest.mark.filterwarnings("ignore")  # of these packages' own imports
if TYPE_CHECKING:
    from transformers.utils.quantization_config import QuantizationConfigMixin

IDS = torch.arange(2, 26)[None]


def options(package: str) -> "QuantizationConfigMixin":
    """Return how transformers quantises with a package: torchao to int8, bitsandbytes to 4 bits."""
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if package == "bitsandbytes":
        return BitsAndBytesConfig(load_in_4bit=True)
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


@pytest.fixture(params=["torchao", "bitsandbytes"])
def quantised(request: pytest.FixtureRequest, llama_base: Base, home: Home, tmp_path: Path) -> Base:
    """The tiny Llama with packed linear layers, as transformers saves it."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder, how = tmp_path / "packed", options(request.param)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(llama_base.path, quantization_config=how, dtype=torch.float32)
        model.save_pretrained(folder)
    for path in llama_base.path.glob("tokenizer*"):
        shutil.copy(path, folder)
    return pull(str(folder), home, offline=True)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_it_is_loaded_trained_on_and_used_beside_an_adapter(
    quantised: Base, llama_base: Base, home: Home, tmp_path: Path
) -> None:
    loaded = load_base(quantised, device="cpu")
    plain = logits(loaded.model)
    exact = logits(load_base(llama_base, device="cpu").model)
    error = (plain - exact).norm() / exact.norm()
    assert 0 < float(error) < 0.3  # of 4 bits; random weights are rounded worse than trained ones

    trainer = LoraTrainer(loaded, HarvestRecipe(rank=4))
    trainer.reset()
    trainer.model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(item.grad is not None and item.grad.isfinite().all() for item in trainer.parameters.values())
    start = trainer.adapter()
    trainer.close()

    rng = torch.Generator().manual_seed(2)
    moved = {
        name: Factors(item.lora_a, torch.randn(item.lora_b.shape, generator=rng) * 0.3)
        for name, item in start.factors.items()
    }
    adapter = Adapter(start.base_model, start.alpha, moved)
    write_adapter(tmp_path / "adapter", adapter, loaded.shapes)
    with applied(loaded.model, placed(loaded.model, adapter)):
        beside = logits(loaded.model)
    with merged(loaded.model, adapter):
        assert torch.equal(logits(loaded.model), beside)
    assert not torch.allclose(beside, plain, atol=1e-2) and torch.equal(logits(loaded.model), plain)

    with pytest.raises(UnsupportedAdapterError, match="is quantised"):
        merge(loaded.model, adapter)
    with pytest.raises(UnsupportedAdapterError, match="nothing can be added") as caught:
        run(find_shares([(str(tmp_path / "adapter"), 1.0)], home), tmp_path / "out", quantised, any_base_name=True)
    assert "bf16" in str(caught.value.hint) and not (tmp_path / "out").exists()
