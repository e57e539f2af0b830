"""llama.cpp itself, with a base and a LoRA that were written as GGUF, says what transformers says."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.adapter_form import cast
from icmlora_cli.weights.gguf.lora import finish, write_lora
from icmlora_cli.weights.gguf.model import Stored, write_model
from icmlora_cli.weights.gguf.target import GgufTarget
from icmlora_cli.weights.gguf.tokenizer import add_tokenizer
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import PLAIN, GenOptions, GenRequest
from tests.random_lora import config_of, random_lora
from tests.workflows.test_pipeline import TEXTS, through_train

pytest.importorskip("llama_cpp", reason="nox -s llamacpp installs llama-cpp-python")
pytestmark = [pytest.mark.llamacpp, pytest.mark.filterwarnings("ignore")]
if TYPE_CHECKING:
    from llama_cpp import Llama

WORDS = ("Paris", "Rome", "the blue whale", "apple, banana, cherry", "cat", "12 and 3456", "It's  done,\n\nisn't it?")
FRAMES = ("{}", "Question: {}? Answer:", "one two three {}")
PROMPTS = tuple(frame.format(word) for frame in FRAMES for word in WORDS)[:20]
F32 = 0  # ggml's number of the type, for keys and values


@contextmanager
def llama(model: Path, lora: Path | None = None) -> Iterator["Llama"]:
    import llama_cpp

    made = llama_cpp.Llama(
        str(model), lora_path=None if lora is None else str(lora), n_ctx=128, logits_all=True, type_k=F32, type_v=F32,
        n_threads=1, n_threads_batch=1, verbose=False,
    )  # fmt: skip
    try:
        yield made
    finally:
        made.close()


def theirs(model: "Llama", prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Return llama.cpp's logits of the token after each prompt, (prompt, token)."""
    rows = []
    for ids in prompts:
        model.reset()
        model.eval(ids)
        rows.append(np.array(model.scores[len(ids) - 1]))
    return np.stack(rows)


def ours(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Return transformers' logits of the token after each prompt, (prompt, token)."""
    with torch.no_grad():
        return np.stack([model(input_ids=torch.tensor([ids])).logits[0, -1].float().numpy() for ids in prompts])


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def write_base(path: Path, model: PreTrainedModel, folder: Path, dtype: Stored = "fp32") -> None:
    write_model(path, dict(model.named_parameters()), model.config.to_dict(), folder, name="base", dtype=dtype)


def write_gemma(path: Path, model: PreTrainedModel, folder: Path) -> None:
    """Write a tiny Gemma 3, whose own tokenizers icmlora does not write, with the tests' tokenizer."""
    config, target = model.config, GgufTarget.of(model.config.to_dict())
    writer = gguf.GGUFWriter(path, target.architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(target.layers)
    writer.add_head_count(target.heads)
    writer.add_head_count_kv(target.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    add_tokenizer(writer, folder, config.vocab_size)
    scale = (config.head_dim / config.query_pre_attn_scalar) ** 0.5  # llama.cpp goes by head_dim
    for name, weight in model.named_parameters():
        value = weight.detach().numpy()
        if name.endswith("norm.weight"):
            value = (1 + value) * (scale if name.endswith("q_norm.weight") else 1)
        writer.add_tensor(target.tensor(name), value.astype(np.float32))
    finish(writer)


def check(base: Path, lora: Path, folder: Path, adapter: Adapter, tolerance: float, least_moved: int = 10) -> None:
    """Check that llama.cpp's next tokens are transformers', without the LoRA and with it.

    Args:
        base: the model's GGUF file.
        lora: the adapter's.
        folder: of the same model, for transformers.
        adapter: the same adapter.
        tolerance: of logits, relative to their standard deviation.
        least_moved: how many of the next tokens the adapter has to change, or the test says nothing of it.
    """
    model, tokenizer = load(folder)
    prompts = [tokenizer(text).input_ids for text in PROMPTS]
    with llama(base) as alone:
        assert [alone.tokenize(text.encode(), add_bos=True, special=False) for text in PROMPTS] == prompts
        found_base = theirs(alone, prompts)
    with llama(base, lora) as adapted:
        found = theirs(adapted, prompts)
    wanted_base = ours(model, prompts)
    with merged(model, adapter):
        wanted = ours(model, prompts)
    for one, two in ((found_base, wanted_base), (found, wanted)):
        print(f"largest difference of logits {np.abs(one - two).max():.2e}, their deviation {two.std():.2e}")
        assert np.abs(one - two).max() < tolerance * two.std()
        assert (one.argmax(1) == two.argmax(1)).all()
    assert (wanted.argmax(1) != wanted_base.argmax(1)).sum() >= least_moved


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "gemma3"])
@pytest.mark.parametrize("kind", ["plain", "mixed", "fp16"])
def test_tiny_models(architecture: str, kind: str, tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_bases[architecture]
    model, _ = load(folder)
    (write_gemma if architecture == "gemma3" else write_base)(tmp_path / "base.gguf", model, folder)
    adapter = random_lora(folder, ranks=(3, 4, 1) if kind == "mixed" else (3,), size=0.2)
    tolerance = 1e-3 if architecture in ("llama", "qwen3") else 2e-2  # llama.cpp looks GELU up in a table of fp16
    target = GgufTarget.of(config_of(folder))
    if kind == "mixed":
        first, second, *_ = adapter.factors
        adapter = replace(adapter, alpha=3.0, use_rslora=True, alphas={first: 9.0, second: 1.0})
    if kind == "fp16":
        adapter, tolerance = cast(adapter, "fp16"), 0.2  # llama.cpp rounds what such matrices are multiplied with
    write_lora(tmp_path / "lora.gguf", adapter, target, name="lora", dtype="fp16" if kind == "fp16" else "fp32")
    check(tmp_path / "base.gguf", tmp_path / "lora.gguf", folder, adapter, tolerance)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_what_gen_writes(architecture: str, tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = pull(str(tiny_bases[architecture]), home, offline=True)
    _, trained = through_train(home, base)
    for name, options in (("gguf", GenOptions(format="gguf")), ("peft", PLAIN)):
        request = GenRequest(trained.folder, options=options)
        generate.run(TEXTS["always_cat"], tmp_path / name, request, base, home, device="cpu")
    model, _ = load(base.path)
    write_base(tmp_path / "base.gguf", model, base.path)
    adapter = read_adapter(tmp_path / "peft")
    check(tmp_path / "base.gguf", tmp_path / "gguf" / "adapter.gguf", base.path, adapter, 2e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-3), ("fp16", 1e-1)])
def test_smollm2(dtype: Stored, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ICMLORA_TEST_CACHE" not in os.environ:
        pytest.skip("ICMLORA_TEST_CACHE names no cache with SmolLM2")
    monkeypatch.setenv("ICMLORA_CACHE", os.environ["ICMLORA_TEST_CACHE"])
    folder = BaseStore(Home.from_environment()).get("smollm2-135m").path
    model, _ = load(folder)
    write_base(tmp_path / "base.gguf", model, folder, dtype)
    adapter = random_lora(folder, ranks=(8,), alpha=16.0, size=0.07)
    write_lora(tmp_path / "lora.gguf", adapter, GgufTarget.of(config_of(folder)), name="lora")
    check(tmp_path / "base.gguf", tmp_path / "lora.gguf", folder, adapter, tolerance)
