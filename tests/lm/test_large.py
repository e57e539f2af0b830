"""Long rows and large bases: micro-batches, checkpointing, packing, attention kernels, devices, packed weights."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.checkpointing import checkpointed
from icmlora_cli.lm.cost import meta_base, meta_rows, training_cost
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import LoadedBase, load_base, quiet_transformers
from icmlora_cli.lm.load_options import LoadOptions
from icmlora_cli.lm.packing import check_apart, pack, packed_log_probs
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.workflows.base.pull import pull

RECIPE = HarvestRecipe(steps=5, batch_size=6, learning_rate=2e-2, keep=1, rank=3)
ROWS = [
    Encoded(tuple(10 + (index * step) % 90 for step in range(1, 3 + index)), (40 + index % 3, 2)[: 1 + index % 2])
    for index in range(14)
]


def trained(loaded: LoadedBase, state: Path, **settings: object) -> tuple[list[float], Adapter]:
    losses: list[float] = []
    recipe = HarvestRecipe.model_validate(RECIPE.model_dump() | settings)
    with trainer_of(loaded, recipe) as trainer:
        finetune(trainer, ROWS, state=state, identity="x", on_step=lambda _, loss: losses.append(loss))
        return losses, trainer.adapter()


def assert_close(one: Adapter, other: Adapter, tolerance: float = 1e-4) -> None:
    assert set(one.factors) == set(other.factors)
    for name, item in one.factors.items():
        assert torch.allclose(item.lora_a, other.factors[name].lora_a, atol=tolerance)
        assert torch.allclose(item.lora_b, other.factors[name].lora_b, atol=tolerance)


@pytest.mark.parametrize("kind", ["lora", "frame"])
@pytest.mark.parametrize(
    "settings",
    [{"micro_batch": 4}, {"micro_batch": 1}, {"gradient_checkpointing": True}, {"packing": True},
     {"packing": True, "micro_batch": 4, "gradient_checkpointing": True}],
    ids=str,
)  # fmt: skip
def test_how_rows_go_through_the_base_changes_nothing(
    tiny_base: Base, tmp_path: Path, kind: str, settings: dict[str, object]
) -> None:
    loaded = load_base(tiny_base, device="cpu")
    losses, adapter = trained(loaded, tmp_path / "plain", parametrization=kind)
    again, other = trained(loaded, tmp_path / "other", parametrization=kind, **settings)
    assert again == pytest.approx(losses, abs=1e-5)
    assert_close(adapter, other)
    assert any(item.lora_b.any() for item in adapter.factors.values())
    assert not any(module.training for module in loaded.model.modules())


def test_packed_rows_do_not_see_each_other(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    check_apart(loaded, loaded.model)
    with torch.no_grad():
        together = packed_log_probs(loaded.model, pack(ROWS, loaded.device))
        alone = [packed_log_probs(loaded.model, pack([row], loaded.device)) for row in ROWS]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_a_model_that_does_not_tell_rows_apart_is_not_packed(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")

    class Blind(torch.nn.Module):
        """The base as architectures are whose attention looks at no positions."""

        def forward(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **_: object) -> object:
            return loaded.model(input_ids=input_ids, logits_to_keep=logits_to_keep)

    with pytest.raises(UsageError, match="see each other") as caught:
        check_apart(loaded, Blind())
    assert caught.value.hint == "packing: false in the harvest recipe"


def test_checkpointing_takes_less_memory_and_is_turned_off_again(llama_base: Base) -> None:
    paper = meta_base(llama_base.path, "tiny", dtype=torch.float32)
    batch = meta_rows(paper, rows=8, tokens=128, answer=2)
    with trainer_of(paper, RECIPE) as trainer:
        plain = training_cost(trainer.model, batch)
        with checkpointed(paper.model):
            less = training_cost(trainer.model, batch)
        assert training_cost(trainer.model, batch) == plain
    assert less.activations < 0.8 * plain.activations and less.flops > plain.flops
    assert less.gradients == plain.gradients


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_attention_is_the_one_that_was_asked_for(llama_base: Base, tmp_path: Path, kernel: str) -> None:
    recipe = HarvestRecipe.model_validate({"attn_implementation": kernel})
    loaded = load_base(llama_base, device="cpu", options=LoadOptions.of(recipe))
    assert loaded.model.config._attn_implementation == kernel
    assert_close(trained(loaded, tmp_path / "a")[1], trained(load_base(llama_base, device="cpu"), tmp_path / "b")[1])


@pytest.mark.parametrize("kind", ["lora", "frame"])
def test_a_base_that_accelerate_places_is_trained_on(llama_base: Base, tmp_path: Path, kind: str) -> None:
    spread = load_base(llama_base, dtype="float32", options=LoadOptions(device_map="auto"))
    assert spread.device == next(spread.model.parameters()).device
    plain = load_base(llama_base, device="cpu")
    one, other = (trained(base, tmp_path / base.device.type / str(id(base)), parametrization=kind)[1]
                  for base in (spread, plain))  # fmt: skip
    assert_close(one, other, 1e-4 if spread.device.type == "cpu" else 1e-2)


@pytest.fixture
def wide_base(llama_base: Base, home: Home, tmp_path: Path) -> Base:
    """A tiny Llama whose rows have whole blocks of 64 weights, which bitsandbytes asks for on a CPU."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 384}
    folder = tmp_path / "wide"
    with quiet_transformers():
        LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=4, **sizes)).save_pretrained(folder)
    for path in llama_base.path.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return pull(str(folder), home, offline=True)


@pytest.mark.filterwarnings("ignore")  # of these packages' own imports
@pytest.mark.parametrize("quantise", ["nf4", "int8"])
@pytest.mark.parametrize("kind", ["lora", "frame"])
def test_a_base_is_packed_as_it_is_loaded(wide_base: Base, tmp_path: Path, quantise: str, kind: str) -> None:
    package = {"nf4": "bitsandbytes", "int8": "torchao"}[quantise]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    recipe = HarvestRecipe.model_validate({"quantise": quantise})
    loaded = load_base(wide_base, device="cpu", options=LoadOptions.of(recipe))
    plain = load_base(wide_base, device="cpu")
    module = loaded.model.get_submodule("model.layers.0.mlp.up_proj")
    assert type(module.weight) is not torch.nn.Parameter
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        error = (loaded.model(input_ids=ids).logits - plain.model(input_ids=ids).logits).abs().max()
    assert 0 < float(error) < 0.2
    first = trained(loaded, tmp_path / "first", parametrization=kind, quantise=quantise)
    score_rows(loaded, ROWS)  # after a pass without gradients, what is trained is the same
    again = trained(loaded, tmp_path / "again", parametrization=kind, quantise=quantise)
    assert again[0] == pytest.approx(first[0], abs=1e-6)
    assert_close(first[1], again[1], 1e-6)
    assert all(item.lora_b.any() for item in again[1].factors.values())


def test_what_cannot_be_had_is_told(llama_base: Base, home: Home, tmp_path: Path) -> None:
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(UsageError, match="flash_attention_2 needs flash_attn") as caught:
            load_base(llama_base, options=LoadOptions(attn_implementation="flash_attention_2"))
        assert caught.value.hint is not None and "pip install flash-attn" in caught.value.hint
    for quantise, package in (("nf4", "bitsandbytes"), ("int8", "torchao")):
        if importlib.util.find_spec(package) is None:
            with pytest.raises(UsageError, match=f"{quantise} needs {package}"):
                load_base(llama_base, options=LoadOptions.of(HarvestRecipe.model_validate({"quantise": quantise})))
    with pytest.raises(UsageError, match="--device cpu names one"):
        load_base(llama_base, device="cpu", options=LoadOptions(device_map="auto"))
    with pytest.raises(UsageError, match="quantised already"):
        LoadOptions(attn_implementation="sdpa", quantise="nf4").check(device=None, packed="gptq")
