"""Loading: frozen, eval, padded, deterministic; damaged files are told as such."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError, UsageError
from icmlora_cli.lm.devices import pick_device, pick_dtype
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.bases import Base
from icmlora_cli.workflows.base.pull import pull


@pytest.fixture
def copied(tiny_bases: dict[str, Path], tmp_path: Path, home: Home) -> Base:
    """A recorded copy of the tiny Llama whose files a test may change."""
    folder = shutil.copytree(tiny_bases["llama"], tmp_path / "copy")
    return pull(str(folder), home, offline=True)


def test_every_architecture_loads_frozen(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    assert loaded.model.config.architectures == [tiny_base.architecture]
    assert not loaded.model.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in loaded.model.parameters())
    assert loaded.tokenizer.pad_token == "<pad>"
    batch = loaded.tokenizer(["The capital of France", "one"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = loaded.model(**batch).logits  # (B, T, V)
    assert logits.shape == (*batch["input_ids"].shape, len(loaded.tokenizer))
    assert torch.isfinite(logits).all()


def test_loading_twice_gives_the_same_weights(llama_base: Base) -> None:
    first, second = (load_base(llama_base, device="cpu").model.state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_loading_prints_nothing(llama_base: Base, capfd: pytest.CaptureFixture[str]) -> None:
    load_base(llama_base, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_tokenizer_round_trips_and_has_a_chat_template(llama_base: Base) -> None:
    tokenizer = load_base(llama_base, device="cpu").tokenizer
    text = "Où est Paris? 42 — 猫\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    messages = [{"role": "user", "content": "one two"}]
    shown = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert shown == "user: one two\nassistant: "


def test_missing_pad_token_becomes_eos(copied: Base) -> None:
    path = copied.path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    tokenizer = load_base(copied, device="cpu").tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token == "<eos>"
    assert len(tokenizer) == 384


def test_bfloat16_on_request(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu", dtype="bfloat16")
    assert loaded.dtype == torch.bfloat16
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("keep", [6, 200, -64])
def test_truncated_safetensors(copied: Base, keep: int) -> None:
    weights = copied.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CorruptFileError) as caught:
        load_base(copied, device="cpu")
    assert "icmlora base pull" in str(caught.value.hint)


def test_missing_tensor_is_not_left_random(copied: Base) -> None:
    weights = copied.path / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CorruptFileError, match=r"layers\.1\.mlp\.up_proj"):
        load_base(copied, device="cpu")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_damaged_json(copied: Base, file: str) -> None:
    path = copied.path / file
    path.write_text(path.read_text()[:50])
    with pytest.raises(CorruptFileError):
        load_base(copied, device="cpu")


def test_missing_folder(copied: Base) -> None:
    shutil.rmtree(copied.path)
    with pytest.raises(CorruptFileError):
        load_base(copied, device="cpu")


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device(None).type in {"cuda", "xpu", "mps", "cpu"}
    for absent in ("tpu", "cuda:99", "cpu:x", ""):
        with pytest.raises(UsageError, match="no device") as caught:
            pick_device(absent)
        assert "cpu" in str(caught.value.hint)


def test_dtypes() -> None:
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(UsageError, match="int4"):
        pick_dtype("int4", torch.device("cpu"))


@pytest.mark.gpu
def test_bfloat16_on_a_gpu(llama_base: Base) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    loaded = load_base(llama_base)
    assert loaded.device.type == "cuda"
    assert loaded.dtype == pick_dtype("auto", loaded.device)


def test_a_quantised_base_names_what_reads_it(copied: Base) -> None:
    path = copied.path / "config.json"
    quantised = {"quantization_config": {"quant_method": "hqq", "quant_config": {}}}
    path.write_text(json.dumps(json.loads(path.read_text()) | quantised))
    with pytest.raises(BaseUnavailableError, match=r"is quantised \(hqq\)") as caught:
        load_base(copied, device="cpu")
    assert "pip install hqq" in str(caught.value.hint)
