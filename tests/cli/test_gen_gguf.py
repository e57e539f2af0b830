"""``icmlora gen --format gguf``: the same adapter as for PEFT, alone or in the whole model."""

from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from icmlora_cli.lm.convert import gguf_to_folder
from icmlora_cli.weights.adapter import read_adapter
from tests.cli.test_gen import CAT, DOG, IDS, about

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

GGUF = ("--format", "gguf")


def tensors(path: str) -> dict[str, np.ndarray]:
    return {item.name: np.array(item.data) for item in gguf.GGUFReader(path).tensors}


def test_an_adapter_for_llama_cpp(trained: "Registry") -> None:
    made = trained.json("gen", CAT, "-o", "out", *GGUF)
    assert made["format"] == "gguf" and made["merged"] is False and made["dtype"] == "fp32"
    assert sorted(path.name for path in Path("out").iterdir()) == ["README.md", "adapter.gguf", "icmlora.json"]
    assert about("out")["options"]["format"] == "gguf"
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "--lora adapter.gguf" in card and "library_name: gguf" in card and "PeftModel" not in card
    trained.call("gen", CAT, "-o", "peft")
    adapter, found = read_adapter(Path("peft")), tensors("out/adapter.gguf")
    said = gguf.GGUFReader("out/adapter.gguf").fields
    assert said["adapter.lora.alpha"].contents() == adapter.alpha and said["general.name"].contents() == CAT
    module = "model.layers.1.self_attn.v_proj"
    assert np.array_equal(found["blk.1.attn_v.weight.lora_a"], adapter.factors[module].lora_a.numpy())
    assert np.array_equal(found["blk.1.attn_v.weight.lora_b"], adapter.factors[module].lora_b.numpy())
    before = Path("out/adapter.gguf").read_bytes()
    assert trained.json("gen", CAT, "-o", "out", *GGUF, code=1)["error"]["kind"] == "AlreadyExistsError"
    trained.call("gen", CAT, "-o", "out", *GGUF, "--force")
    assert Path("out/adapter.gguf").read_bytes() == before
    half = trained.json("gen", CAT, "-o", "half", *GGUF, "--dtype", "fp16", "--scale", "0.7")
    assert half["dtype"] == "fp16" and 0 < half["error"] < 1e-3
    assert {item.dtype for item in tensors("half/adapter.gguf").values()} == {np.dtype(np.float16)}


def test_a_whole_model_for_llama_cpp(trained: "Registry") -> None:
    made = trained.json("gen", CAT, "-o", "out", "--merge", *GGUF)
    assert made["merged"] is True and made["format"] == "gguf" and made["dtype"] == "fp32"
    assert sorted(path.name for path in Path("out").iterdir()) == ["README.md", "icmlora.json", "model.gguf"]
    assert "llama-cli -m model.gguf" in Path("out/README.md").read_text(encoding="utf-8")
    Path("again").mkdir()
    gguf_to_folder(Path("out/model.gguf"), Path("again"))
    trained.call("gen", CAT, "-o", "merged", "--merge")
    with torch.no_grad():
        found, wanted = (
            AutoModelForCausalLM.from_pretrained(name)(input_ids=IDS).logits for name in ("again", "merged")
        )
    assert torch.allclose(found, wanted, atol=1e-5)
    assert trained.json("gen", CAT, "-o", "q8", "--merge", *GGUF, "--dtype", "q8_0")["dtype"] == "q8_0"
    kinds = {item.name: item.tensor_type.name for item in gguf.GGUFReader("q8/model.gguf").tensors}
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_q.weight"] == "Q8_0"


def test_a_batch_goes_on_where_the_files_are_there(trained: "Registry") -> None:
    Path("texts.txt").write_text(f"{CAT}\n{DOG}\n", encoding="utf-8")
    command = ("gen", "--batch", "texts.txt", "-o", "out", *GGUF)
    assert [item["state"] for item in trained.json(*command)["entries"]] == ["written", "written"]
    next(Path("out").glob("*dog*/adapter.gguf")).unlink()
    error = trained.json(*command, code=1)["error"]
    assert error["kind"] == "AlreadyExistsError"
    assert [item["state"] for item in trained.json(*command, "--force")["entries"]] == ["unchanged", "written"]
    assert trained.json("gen", "--batch", "texts.txt", "-o", "out", code=1)["error"]["kind"] == "AlreadyExistsError"


def test_what_does_not_go_together(trained: "Registry") -> None:
    for options, said in (
        (("--dtype", "q8_0"), "--merge --format gguf"),
        (("--dtype", "q8_0", *GGUF), "--merge --format gguf"),
        (("--dtype", "q8_0", "--merge"), "--merge --format gguf"),
        (("--dtype", "bf16", *GGUF), "--dtype fp16"),
    ):
        error = trained.json("gen", CAT, "-o", "out", *options, code=2)["error"]
        assert error["kind"] == "UsageError" and said in error["hint"]
    assert not Path("out").exists()
