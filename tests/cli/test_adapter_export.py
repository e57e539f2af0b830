"""``icmlora adapter export``: GGUF for llama.cpp or a PEFT folder; its JSON keys are pinned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.weights.adapter import read_adapter, write_adapter
from icmlora_cli.workflows.base.pull import resolve
from tests.random_lora import fitting_base, random_lora

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

KEYS = {"schema", "output", "format", "task", "key", "base_model", "architecture", "modules", "rank", "bytes"}


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {item.name: np.array(item.data) for item in gguf.GGUFReader(path).tensors}


def test_a_task_by_its_name_its_key_and_its_folder(trained: "Registry") -> None:
    made = trained.json("adapter", "export", "always_cat", "-o", "cat.gguf", "--format", "gguf")
    assert set(made) == KEYS and made["schema"] == "icmlora.adapter.export/1" and made["format"] == "gguf"
    assert made["task"] == "always_cat" and made["architecture"] == "llama" and made["rank"] == 8
    assert made["bytes"] == Path("cat.gguf").stat().st_size and made["base_model"].startswith("llama@")
    record = next(item for item in trained.json("adapter", "list")["adapters"] if item["task"] == "always_cat")
    assert made["key"] == record["key"]
    reader = gguf.GGUFReader("cat.gguf")
    assert reader.fields["general.name"].contents() == "always_cat"
    adapter, found = read_adapter(Path(record["folder"])), tensors(Path("cat.gguf"))
    assert len(found) == 2 * len(adapter.factors) == 2 * made["modules"]
    for module, item in adapter.factors.items():
        layer, name = module.split(".")[2], {"q_proj": "attn_q", "v_proj": "attn_v"}[module.rsplit(".", 1)[-1]]
        assert np.array_equal(found[f"blk.{layer}.{name}.weight.lora_a"], item.lora_a.numpy())

    trained.call("adapter", "export", record["key"], "-o", "key.gguf", "--format", "gguf")
    assert Path("key.gguf").read_bytes() == Path("cat.gguf").read_bytes()
    from_folder = trained.json("adapter", "export", record["folder"], "-o", "sub/folder.gguf", "--format", "gguf")
    assert from_folder["task"] is from_folder["key"] is None
    assert tensors(Path("sub/folder.gguf")).keys() == found.keys()
    said = trained.call("adapter", "export", "always_cat", "-o", "h.gguf", "--format", "gguf", "--dtype", "fp16")
    assert "modules, rank 8" in said.stdout and "--lora h.gguf" in said.stderr
    assert all(item.dtype == np.float16 for item in tensors(Path("h.gguf")).values())
    assert (
        trained.call("adapter", "export", "always_cat", "-o", "q.gguf", "--format", "gguf", "-q").stdout == "q.gguf\n"
    )


def test_a_peft_folder_with_its_card(trained: "Registry") -> None:
    made = trained.json("adapter", "export", "always_dog", "-o", "dog")
    assert made["format"] == "peft" and made["architecture"] is None and made["bytes"] > 0
    record = next(item for item in trained.json("adapter", "list")["adapters"] if item["task"] == "always_dog")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert Path("dog", name).read_bytes() == Path(record["folder"], name).read_bytes()
    card = Path("dog/README.md").read_text(encoding="utf-8")
    assert "LoRA adapter of the task `always_dog`" in card and "`llama@" in card and "exact_match" in card
    about = json.loads(Path("dog/icmlora.json").read_text(encoding="utf-8"))
    assert about["schema"] == "icmlora.exported/1" and about["adapter"]["key"] == record["key"]
    base = AutoModelForCausalLM.from_pretrained(trained.base)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before = base(input_ids=ids).logits
        assert not torch.allclose(PeftModel.from_pretrained(base, "dog")(input_ids=ids).logits, before)
    trained.call("adapter", "export", "always_cat", "-o", "dog", code=1)
    trained.call("adapter", "export", "always_cat", "-o", "dog", "--force")
    assert "always_cat" in Path("dog/README.md").read_text(encoding="utf-8")


def test_what_is_there_is_only_replaced_when_that_is_said(trained: "Registry") -> None:
    command = ("adapter", "export", "always_cat", "--format", "gguf", "-o")
    Path("cat.gguf").write_bytes(b"mine")
    error = trained.json(*command, "cat.gguf", code=1)["error"]
    assert error["kind"] == "AlreadyExistsError" and "--force" in error["hint"]
    assert Path("cat.gguf").read_bytes() == b"mine"
    trained.call(*command, "cat.gguf", "--force")
    assert tensors(Path("cat.gguf"))
    Path("folder").mkdir()
    assert trained.json(*command, "folder", "--force", code=1)["error"]["kind"] == "AlreadyExistsError"
    assert not [path.name for path in trained.root.iterdir() if path.name.startswith(".")]


def changed(folder: Path, name: str, **values: object) -> Path:
    """Write a random LoRA of a tiny base as a PEFT folder whose configuration says something else."""
    adapter = random_lora(folder)
    write_adapter(Path(name), adapter, fitting_base(adapter))
    path = Path(name, "adapter_config.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return Path(name)


def test_what_gguf_cannot_say_is_refused(trained: "Registry") -> None:
    command = ("--format", "gguf", "-o", "x.gguf")
    dora = changed(trained.base, "dora", use_dora=True)
    error = trained.json("adapter", "export", dora, *command, code=1)["error"]
    assert error["kind"] == "UnsupportedAdapterError"
    assert "DoRA" in error["message"] and "--approximate" in error["hint"]

    bloom = Path("bloom")
    bloom.mkdir()
    (bloom / "config.json").write_text(json.dumps({"architectures": ["BloomForCausalLM"]}), encoding="utf-8")
    said = trained.call("adapter", "export", "always_cat", *command, "--base", "./bloom", code=1).stderr
    assert said.splitlines() == [
        "error: GGUF is written for LlamaForCausalLM, MistralForCausalLM, GPT2LMHeadModel, Qwen2ForCausalLM, "
        "Qwen3ForCausalLM, Gemma3ForCausalLM, Phi3ForCausalLM, and the base is a BloomForCausalLM",
        f"  where: {trained.root / 'bloom' / 'config.json'}",
        "  next: --format peft; llama.cpp's convert_lora_to_gguf.py may know this architecture",
    ]
    assert not Path("x.gguf").exists()


def test_a_base_that_is_not_here_is_named(trained: "Registry") -> None:
    folder, command = (
        changed(trained.base, "far", base_model_name_or_path="some/model"),
        ("--format", "gguf", "-o", "x.gguf"),
    )
    error = trained.json("adapter", "export", folder, *command, code=1)["error"]
    assert error["kind"] == "NotFoundError" and "some/model" in error["message"]
    assert error["hint"].startswith("icmlora base pull some/model")
    nameless = changed(trained.base, "nameless", base_model_name_or_path=None)
    assert "--base" in trained.json("adapter", "export", nameless, *command, code=1)["error"]["hint"]
    assert trained.json("adapter", "export", folder, *command, "--base", trained.base)["base_model"] == "some/model"
    home = Home.from_environment()
    BaseStore(home).record(replace(resolve(str(trained.base), home, offline=True), name="some/model"))
    trained.call("adapter", "export", folder, *command, "--force")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("always_cat", "-o", "cat.gguf"), "--format gguf"),
        (("always_cat", "-o", "cat", "--dtype", "fp16"), "--format gguf"),
        (("plain", "-o", "cat"), "copy it"),
    ],
)
def test_options_that_do_not_go_together(trained: "Registry", arguments: tuple[str, ...], hint: str) -> None:
    changed(trained.base, "plain")
    error = trained.json("adapter", "export", *arguments, code=2)["error"]
    assert error["kind"] == "UsageError" and hint in error["hint"]
    assert trained.json("adapter", "export", "nothing", "-o", "x", code=1)["error"]["kind"] == "NotFoundError"
    assert not Path("cat").exists() and not Path("cat.gguf").exists()
