"""Adapters as they are found in the wild: older names of keys and modules, AdaLoRA, what is set and means nothing."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError, WrongBaseError
from icmlora_cli.lm.adapter_base import adapter_base
from icmlora_cli.registry.base_files import describe
from icmlora_cli.weights.foreign.check import BaseShapes
from icmlora_cli.weights.foreign.open import AdapterBase, open_adapter, open_foreign
from icmlora_cli.weights.merge import merged
from tests.peft_made import saved_by_peft
from tests.weights.foreign.conftest import IDS

if TYPE_CHECKING:
    from tests.weights.foreign.conftest import Tiny

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def rekeyed(folder: Path, new: Callable[[str], str]) -> None:
    save_file({new(name): item for name, item in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def configured(folder: Path, **values: object) -> None:
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | values))


@pytest.fixture
def base(llama: "Tiny") -> AdapterBase:
    return adapter_base(describe(llama.path, name=str(llama.path), model_id=str(llama.path), origin="folder"))


@pytest.fixture
def plain(llama: "Tiny", tmp_path: Path) -> Path:
    return saved_by_peft(llama.model, tmp_path / "plain", target_modules=["q_proj", "down_proj"])


def logits(tiny: "Tiny", folder: Path, base: AdapterBase) -> torch.Tensor:
    with merged(tiny.model, open_adapter(folder, base)), torch.no_grad():
        return tiny.model(input_ids=IDS).logits


def test_the_adapters_name_in_its_keys(llama: "Tiny", plain: Path, base: AdapterBase) -> None:
    wanted = llama.logits(plain)
    rekeyed(plain, lambda name: name.replace(".weight", ".default.weight"))
    torch.testing.assert_close(logits(llama, plain, base), wanted, atol=1e-5, rtol=1e-4)


def test_adalora_is_a_lora(llama: "Tiny", tmp_path: Path, base: AdapterBase) -> None:
    config = AdaLoraConfig(
        init_r=6, target_r=3, lora_alpha=24, total_step=10, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(copy.deepcopy(llama.model), config)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, item in model.named_parameters():
            if "lora_" in name:
                item.copy_(torch.randn(item.shape, generator=rng) * 0.2)
        wanted = model.eval()(input_ids=IDS).logits
    model.save_pretrained(str(tmp_path / "ada"))
    torch.testing.assert_close(logits(llama, tmp_path / "ada", base), wanted, atol=1e-4, rtol=1e-4)
    configured(tmp_path / "ada", peft_type="LORA")
    with pytest.raises(CorruptFileError, match="are an AdaLoRA's"):
        open_adapter(tmp_path / "ada", base)


def test_what_is_set_and_means_nothing_is_noted(plain: Path, base: AdapterBase) -> None:
    configured(plain, modules_to_save=["wpe"], use_shiny_thing=True)
    notes = open_foreign(plain, base).notes
    assert [note for note in notes if "use_shiny_thing" in note] and [note for note in notes if "wpe" in note]


def test_classifiers_are_named(plain: Path, base: AdapterBase) -> None:
    configured(plain, task_type="SEQ_CLS")
    with pytest.raises(UnsupportedAdapterError, match="a classifier's adapter"):
        open_adapter(plain, base)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"init_lora_weights": "olora"}, UnsupportedAdapterError),
        ({"alora_invocation_tokens": [1]}, UnsupportedAdapterError),
        ({"base_model_name_or_path": "meta-llama/Llama-3.1-8B"}, WrongBaseError),
    ],
)
def test_the_door_refuses(plain: Path, base: AdapterBase, values: dict[str, object], error: type[Exception]) -> None:
    configured(plain, **values)
    with pytest.raises(error):
        open_adapter(plain, base)


def test_the_weights_of_icmlora_json_are_compared(plain: Path, base: AdapterBase) -> None:
    written = {
        "schema": "icmlora.served/1", "task": "x", "key": "k", "sha256": "0" * 64,
        "base": {"weight_hash": "0" * 64, "model_id": "other"}, "licence": None, "versions": {},
    }  # fmt: skip
    (plain / "icmlora.json").write_text(json.dumps(written))
    with pytest.raises(WrongBaseError, match="for other weights"):
        open_adapter(plain, base)


def test_a_base_layer_is_taken_where_it_is_the_bases(llama: "Tiny", plain: Path, base: AdapterBase) -> None:
    name = "model.layers.0.self_attn.q_proj"
    found = load_file(plain / WEIGHTS)
    own = llama.weight(f"{name}.weight").clone()
    save_file(found | {f"base_model.model.{name}.base_layer.weight": own}, plain / WEIGHTS)
    assert name in open_adapter(plain, base).factors
    save_file(found | {f"base_model.model.{name}.base_layer.weight": own + 1}, plain / WEIGHTS)
    with pytest.raises(UnsupportedAdapterError, match="saved module"):
        open_adapter(plain, base)
    with pytest.raises(UnsupportedAdapterError, match="beside its base"):
        open_adapter(plain, None)


def test_names_of_older_releases(plain: Path, base: AdapterBase) -> None:
    """The modules of a vision language model, as transformers names them from 4.52 on."""
    shapes = BaseShapes(
        {name.replace("model.", "model.language_model.", 1): item for name, item in base.shapes.modules.items()},
        {name.replace("model.", "model.language_model.", 1): item for name, item in base.shapes.parameters.items()},
    )
    configured(plain, alpha_pattern={"^language_model\\.model\\.layers\\.0\\.self_attn\\.q_proj": 3})
    rekeyed(plain, lambda name: name.replace("base_model.model.model.", "base_model.model.language_model.model."))
    adapter = open_adapter(plain, replace(base, shapes=shapes))
    assert adapter.alphas == {"model.language_model.layers.0.self_attn.q_proj": 3.0}
    assert set(adapter.factors) < set(shapes.modules)


def test_single_experts_are_named(plain: Path, base: AdapterBase) -> None:
    parameters = {**base.shapes.parameters, "model.layers.0.mlp.experts.gate_up_proj": (2, 8, 8)}
    rekeyed(plain, lambda name: name.replace("mlp.down_proj", "mlp.experts.1.down_proj"))
    with pytest.raises(UnsupportedAdapterError, match="is on a single expert"):
        open_adapter(plain, replace(base, shapes=BaseShapes(base.shapes.modules, parameters)))
