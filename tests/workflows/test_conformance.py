"""One generated adapter in every form that it leaves in: whoever loads it, it is the same change of the model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import Base
from icmlora_cli.workflows.adapters import export
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import PLAIN, GenOptions, GenRequest
from icmlora_cli.workflows.merge import merge
from tests.gguf_read import deltas, said
from tests.workflows.merge.test_merge import adapted, loaded, logits
from tests.workflows.test_pipeline import TEXTS, through_train

ARCHITECTURES = {  # as llama.cpp names them
    "LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2", "Qwen3ForCausalLM": "qwen3",
    "Gemma3ForCausalLM": "gemma3",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """What was generated, from one text.

    Args:
        base: what it is for.
        home: the registry.
        root: the folder that outputs lie in.
        folder: the adapter, as PEFT has it.
        write: writes the same adapter into ``root``, by name; returns the folder.
    """

    base: Base
    home: Home
    root: Path
    folder: Path
    write: Callable[..., Path]

    @property
    def architecture(self) -> str:
        return ARCHITECTURES[self.base.architecture]


@pytest.fixture
def made(tiny_base: Base, home: Home, tmp_path: Path) -> Made:
    """An adapter that a trained generator made, on each of four architectures."""
    _, trained = through_train(home, tiny_base)

    def write(name: str, options: GenOptions = PLAIN, *, merged: bool = False) -> Path:
        request = GenRequest(trained.folder, merged, options=options)
        return generate.run(TEXTS["always_cat"], tmp_path / name, request, tiny_base, home, device="cpu").folder

    return Made(tiny_base, home, tmp_path, write("peft"), write)


def by_hand(made: Made) -> dict[str, torch.Tensor]:
    """Return alpha / r * B A of each module, fp64 [out, in], from the file's tensors alone."""
    config = json.loads((made.folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert not config["use_rslora"] and not config["rank_pattern"] and not config["alpha_pattern"]
    tensors = load_file(made.folder / "adapter_model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    assert len(tensors) == 2 * len(names)
    return {
        name.removeprefix("base_model.model."): config["lora_alpha"] / config["r"]
        * (tensors[f"{name}.lora_B.weight"].double() @ tensors[f"{name}.lora_A.weight"].double())
        for name in names
    }  # fmt: skip


def check_peft_and_merged(made: Made) -> None:
    """PEFT's model and both ways to merge compute what the base with the change added by hand computes."""
    model = loaded(made.base.path)
    plain = logits(model)
    with torch.no_grad():
        for name, delta in by_hand(made).items():
            weight = model.get_submodule(name).weight
            weight += (delta.T if made.architecture == "gpt2" else delta).float()
    wanted = logits(model)
    assert (wanted - plain).abs().max() > 0.1  # or the rest says nothing
    assert torch.allclose(logits(adapted(made.base.path, made.folder)), wanted, atol=1e-5)
    merged = made.write("merged", merged=True)
    share = merge.find_shares([(str(made.folder), 1.0)], made.home)
    merge.run(share, made.root / "by-merge", made.base)
    for folder in (merged, made.root / "by-merge"):
        assert torch.allclose(logits(loaded(folder)), wanted, atol=1e-4)
    theirs = adapted(made.base.path, made.folder, merged=True)
    assert torch.allclose(logits(theirs), logits(loaded(merged)), atol=1e-4)
    assert (merged / "model.safetensors").read_bytes() == (made.root / "by-merge" / "model.safetensors").read_bytes()


def check_gguf(made: Made) -> None:
    """Both ways to GGUF say the same change, in llama.cpp's names and order of rows."""
    wanted = by_hand(made)
    generated = made.write("gguf", GenOptions(format="gguf")) / "adapter.gguf"
    exported = export.run(str(made.folder), made.root / "exported.gguf", made.home, form="gguf").output
    for path in (generated, exported):
        reader = gguf.GGUFReader(path)
        assert said(reader)["general.type"] == "adapter" and said(reader)["adapter.type"] == "lora"
        assert said(reader)["general.architecture"] == made.architecture
        found = deltas(reader, made.architecture)
        assert found.keys() == wanted.keys()
        for name, delta in wanted.items():
            assert np.abs(found[name] - delta.numpy()).max() <= 1e-6 * float(delta.abs().max())


def test_every_form_is_the_same_change(made: Made) -> None:
    check_peft_and_merged(made)
    check_gguf(made)
