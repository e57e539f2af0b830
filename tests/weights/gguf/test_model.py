"""A whole model in GGUF: transformers, which has a reader of its own, loads the same model and tokenizer from it."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.lm.convert import gguf_to_folder
from icmlora_cli.weights.gguf.model import check_model, write_model
from icmlora_cli.weights.gguf.tokenizer import PRE_TOKENIZERS, check_tokenizer, pre_tokenizer
from tests.random_lora import config_of

TEXT = "The capital of France is Paris.\n  And 1234 of Italy's,   isn't it? über 日本"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def write(path: Path, base: Path, **options: object) -> gguf.GGUFReader:
    model = load(base)
    write_model(path, dict(model.named_parameters()), model.config.to_dict(), base, name="tiny", **options)  # type: ignore[arg-type]
    return gguf.GGUFReader(path)


def test_transformers_reads_the_same_model_from_it(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_bases["llama"]
    write(tmp_path / "model.gguf", base)
    (tmp_path / "again").mkdir()
    gguf_to_folder(tmp_path / "model.gguf", tmp_path / "again")
    tokenizer, again = (AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "again"))
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert again(TEXT).input_ids == ids[0].tolist() and again.chat_template == tokenizer.chat_template
    with torch.no_grad():
        wanted, found = (load(folder)(input_ids=ids).logits for folder in (base, tmp_path / "again"))
    assert torch.allclose(found, wanted, atol=1e-6)


def test_other_architectures_keep_their_rows(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    """The readers of transformers take sizes of these for granted that the tiny ones do not have."""
    for architecture, pairs in (
        (
            "qwen3",
            {"blk.1.attn_q": "model.layers.1.self_attn.q_proj", "blk.0.attn_k_norm": "model.layers.0.self_attn.k_norm"},
        ),
        ("gpt2", {"blk.1.attn_qkv": "transformer.h.1.attn.c_attn", "position_embd": "transformer.wpe"}),
    ):
        parameters = dict(load(tiny_bases[architecture]).named_parameters())
        tensors = {item.name: item.data for item in write(tmp_path / "model.gguf", tiny_bases[architecture]).tensors}
        assert len(tensors) == len(parameters)
        for theirs, ours in pairs.items():
            weight = parameters[f"{ours}.weight"].detach()
            assert np.array_equal(tensors[f"{theirs}.weight"], weight.T if ours.endswith("c_attn") else weight)


def test_what_the_file_says_of_itself(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    reader = write(tmp_path / "model.gguf", tiny_bases["llama"])
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.architecture"] == "llama" and said["general.name"] == "tiny"
    sizes = {
        "vocab_size": 384,
        "context_length": 512,
        "embedding_length": 32,
        "block_count": 2,
        "attention.key_length": 8,
    }
    heads = {"attention.head_count": 4, "attention.head_count_kv": 2, "rope.freq_base": 10_000.0}
    assert {key: said[f"llama.{key}"] for key in sizes | heads} == sizes | heads
    assert said["tokenizer.ggml.model"] == "gpt2" and said["tokenizer.ggml.pre"] == "gpt-2"
    assert said["tokenizer.ggml.tokens"][:2] == ["<pad>", "<eos>"]
    assert said["tokenizer.ggml.token_type"][:3] == [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL]
    assert said["tokenizer.ggml.eos_token_id"] == 1 and said["tokenizer.ggml.padding_token_id"] == 0
    assert said["tokenizer.ggml.add_bos_token"] is False and "assistant" in said["tokenizer.chat_template"]
    assert {item.name for item in reader.tensors if not item.name.startswith("blk.")} == {
        "token_embd.weight",
        "output_norm.weight",
    }


@pytest.mark.parametrize(
    ("dtype", "kind", "error"), [("fp16", "F16", 1e-3), ("bf16", "BF16", 8e-3), ("q8_0", "Q8_0", 8e-3)]
)
def test_matrices_in_fewer_bits(
    dtype: str, kind: str, error: float, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    wanted = {item.name: item.data for item in write(tmp_path / "whole.gguf", tiny_bases["llama"]).tensors}
    reader = write(tmp_path / "model.gguf", tiny_bases["llama"], dtype=dtype)
    for item in reader.tensors:
        vector = "norm" in item.name
        assert item.tensor_type.name == ("F32" if vector else kind)
        found = gguf.quants.dequantize(item.data, item.tensor_type)
        assert np.abs(found - wanted[item.name]).max() <= (0 if vector else error * np.abs(wanted[item.name]).max())


def test_rows_that_blocks_do_not_fit_are_half_precision(tmp_path: Path, tiny_bases: dict[str, Path]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=False, architectures=["LlamaForCausalLM"], attention_bias=True,
    )  # fmt: skip
    parameters = dict(LlamaForCausalLM(config).named_parameters())
    write_model(tmp_path / "m.gguf", parameters, config.to_dict(), tiny_bases["llama"], name="odd", dtype="q8_0")
    kinds = {item.name: item.tensor_type.name for item in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16" and kinds["blk.0.ffn_up.weight"] == kinds["output.weight"] == "Q8_0"
    assert kinds["blk.0.attn_q.bias"] == "F32"


def test_models_that_cannot_be_written_are_told_apart(tiny_bases: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedAdapterError, match="for llama, qwen2, qwen3, gpt2, and this one is gemma3"):
        check_model(config_of(tiny_bases["gemma3"]))
    llama = config_of(tiny_bases["llama"])
    assert check_model(llama).layers == 2
    for change, why in (
        ({"hidden_act": "gelu"}, "hidden_act: gelu"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_type: llama3"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type: linear"),
    ):
        with pytest.raises(UnsupportedAdapterError, match=why):
            check_model(llama | change)


@pytest.mark.parametrize(("rules", "name"), [(rules, name) for rules, name in PRE_TOKENIZERS.items()])
def test_pre_tokenizers_go_by_their_rules(rules: tuple[tuple[object, ...], ...], name: str) -> None:
    fields = {"Digits": ("individual_digits",), "ByteLevel": ("add_prefix_space", "use_regex")}
    steps = [
        {"type": kind, "pattern": {"Regex": values[0]}, "behavior": values[1], "invert": values[2]}
        if kind == "Split"
        else {"type": kind} | dict(zip(fields[str(kind)], values, strict=True))
        for kind, *values in rules
    ]
    value = {
        "model": {"type": "BPE", "ignore_merges": name == "llama-bpe"},
        "normalizer": {"type": "NFC"} if name == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
    }
    assert pre_tokenizer(value) == name
    for change in (
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"model": {"type": "Unigram"}},
        {"model": {"type": "BPE", "ignore_merges": name != "llama-bpe"}},
        {"model": {"type": "BPE", "ignore_merges": name == "llama-bpe", "byte_fallback": True}},
    ):
        with pytest.raises(UnsupportedAdapterError, match="gpt-2, smollm"):
            pre_tokenizer(value | change)


def test_a_blank_before_the_text_is_another_tokenizer() -> None:
    plain = {"model": {"type": "BPE"}, "pre_tokenizer": BYTES}
    assert pre_tokenizer(plain) == "gpt-2"
    with pytest.raises(UnsupportedAdapterError):
        pre_tokenizer(plain | {"pre_tokenizer": BYTES | {"add_prefix_space": True}})


def test_a_damaged_tokenizer_is_told(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"there is no tokenizer\.json"):
        check_tokenizer(tmp_path)
    folder = tmp_path / "base"
    shutil.copytree(tiny_bases["llama"], folder)
    value = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    value["model"]["vocab"]["beyond"] = 384
    (folder / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(CorruptFileError, match="more tokens than the model's 384"):
        write(tmp_path / "model.gguf", folder)
    assert not list(tmp_path.glob("*.gguf"))
