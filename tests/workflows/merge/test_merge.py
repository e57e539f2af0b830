"""Merging file by file: what PEFT's own merge computes, in the base's files, dtypes and names."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import icmlora_cli
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, CorruptFileError, UnsupportedAdapterError, UsageError, WrongBaseError
from icmlora_cli.lm.load import quiet_transformers
from icmlora_cli.registry.base_files import INDEX
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.stored import shards
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.merge.merge import MergeResult, base_name, find_shares, run
from tests.conftest import ARCHITECTURES
from tests.peft_made import saved_by_peft

IDS = torch.arange(2, 26)[None]
CONV = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
LINEAR = {"target_modules": ["q_proj", "o_proj", "down_proj"]}


def loaded(folder: Path) -> PreTrainedModel:
    """Return a model in the dtype of its files."""
    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def saved(model: PreTrainedModel, like: Path, folder: Path, shard: str = "50GB") -> Path:
    """Save a model with the tokenizer of another folder."""
    with quiet_transformers():
        model.save_pretrained(folder, max_shard_size=shard)
    for path in like.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: item for path in folder.glob("*.safetensors") for name, item in load_file(path).items()}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def adapted(base: Path, adapter: Path, *, merged: bool = False) -> torch.nn.Module:
    """Return the base under an adapter, as PEFT has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights
        model = PeftModel.from_pretrained(loaded(base), str(adapter))
        return model.merge_and_unload() if merged else model


def merge(
    home: Home, base: Path, out: Path, adapters: Mapping[Path, float] | Sequence[Path], **options: object
) -> MergeResult:
    shares = adapters if isinstance(adapters, Mapping) else dict.fromkeys(adapters, 1.0)
    found = find_shares([(str(path), weight) for path, weight in shares.items()], home)
    return run(found, out, pull(str(base), home, offline=True), **options)


def settings(architecture: str) -> dict[str, object]:
    return CONV if architecture == "gpt2" else LINEAR


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_pefts_merge(
    tiny_bases: dict[str, Path], home: Home, tmp_path: Path, architecture: str, dtype: torch.dtype, sharded: bool
) -> None:
    tiny = tiny_bases[architecture]
    base = saved(loaded(tiny).to(dtype), tiny, tmp_path / "base", "30KB" if sharded else "50GB")
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", **settings(architecture))
    done = merge(home, base, tmp_path / "out", [adapter])
    theirs, before, after = adapted(base, adapter, merged=True), tensors(base), tensors(tmp_path / "out")
    single = dtype == torch.float32
    wanted = theirs.state_dict()
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == done.model.changed == len(settings(architecture)["target_modules"]) * 2
    for name, item in after.items():
        assert item.dtype == dtype
        # PEFT rounds delta-W to bf16 first, and then the sum
        off = (item.float() - wanted[name].float()).abs() / before[name].float().abs().clamp(min=0.01)
        assert float(off.max()) < (1e-5 if single else 0.02)
    close = 1e-4 if single else 0.05
    assert torch.allclose(logits(loaded(tmp_path / "out")).float(), logits(theirs).float(), atol=close)
    assert not torch.allclose(logits(loaded(base)).float(), logits(theirs).float(), atol=close)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("the first word").input_ids
    for name in ("config.json", "generation_config.json", "tokenizer.json", *([INDEX] if sharded else [])):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert len(list(base.glob("*.safetensors"))) == done.model.files >= (3 if sharded else 1)


def test_the_sum_is_made_in_fp32_and_rounded_once(tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = saved(loaded(tiny_bases["llama"]).to(torch.bfloat16), tiny_bases["llama"], tmp_path / "base")
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", **LINEAR)
    merge(home, base, tmp_path / "out", [adapter])
    factors, before, after = load_file(adapter / "adapter_model.safetensors"), tensors(base), tensors(tmp_path / "out")
    for name in (name.removesuffix(".weight") for name in before if name.endswith("q_proj.weight")):
        a, b = (factors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        exact = before[f"{name}.weight"].double() + 2.0 * (b.double() @ a.double())
        assert torch.equal(after[f"{name}.weight"], exact.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {"use_dora": True, **LINEAR}),
        ("gpt2", {"use_dora": True, **CONV}),
        ("qwen3", {"use_rslora": True, "rank_pattern": {"q_proj": 7}, "alpha_pattern": {"o_proj": 3}, **LINEAR}),
        ("gpt2", {"lora_bias": True, **CONV}),
        ("gpt2", {"bias": "all", "bias_step": 0.1, **CONV}),
        ("gpt2", {"modules_to_save": ["ln_f", "c_proj"], "bias_step": 0.1, **CONV}),
        ("llama", {"modules_to_save": ["embed_tokens"], "bias_step": 0.1, **LINEAR}),
        ("gemma3", {"modules_to_save": ["lm_head"], "bias_step": 0.1, **LINEAR}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens"]}),
        ("gemma3", {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}),
        ("gpt2", {"target_modules": ["wte"]}),
        ("gpt2", {"target_modules": ["wpe", "lm_head"]}),
        ("qwen3", {"target_modules": ["lm_head", "embed_tokens"]}),
        ("llama", {"target_modules": ["lm_head"], "use_dora": True}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}),
    ],
)
def test_more_than_plain_lora(
    tiny_bases: dict[str, Path],
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    options: dict[str, object],
) -> None:
    monkeypatch.setattr(shards, "BLOCK", 700)  # numbers: several blocks a tensor
    base = tiny_bases[architecture]
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", **options)
    done = merge(home, base, tmp_path / "out", [adapter])
    ours, wanted = logits(loaded(tmp_path / "out")), logits(adapted(base, adapter))
    assert torch.allclose(ours, wanted, atol=1e-4)
    assert not torch.allclose(logits(loaded(base)), wanted, atol=1e-3)
    config = files.read_json(tmp_path / "out" / "config.json")
    told = [name for name in ("wte", "embed_tokens", "lm_head") if name in str(options)]
    assert done.model.untied == (bool(told) and "ensure_weight_tying" not in options)
    assert config.get("tie_word_embeddings", True) == (not done.model.untied)
    assert done.model.tensors == len(tensors(base)) + done.model.untied


def test_an_untied_embedding_stands_in_the_index(tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = saved(loaded(tiny_bases["qwen3"]), tiny_bases["qwen3"], tmp_path / "base", "30KB")
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", target_modules=["lm_head", "v_proj"])
    merge(home, base, tmp_path / "out", [adapter])
    index, after = files.read_json(tmp_path / "out" / INDEX), tensors(tmp_path / "out")
    mapped, metadata = index["weight_map"], index["metadata"]
    assert isinstance(mapped, dict) and isinstance(metadata, dict)
    assert mapped.keys() == after.keys() == {*tensors(base), "lm_head.weight"}
    assert metadata["total_size"] == sum(item.nbytes for item in after.values())
    for name, file in mapped.items():
        assert name in load_file(tmp_path / "out" / file)
    assert torch.allclose(logits(loaded(tmp_path / "out")), logits(adapted(base, adapter)), atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_several_adapters_with_weights(
    tiny_bases: dict[str, Path], home: Home, tmp_path: Path, architecture: str
) -> None:
    base, options = tiny_bases[architecture], settings(architecture)
    one = saved_by_peft(loaded(base), tmp_path / "one", **options)
    two = saved_by_peft(loaded(base), tmp_path / "two", seed=2, r=3, **options)
    merge(home, base, tmp_path / "out", {one: 0.7, two: -0.3})
    theirs = PeftModel.from_pretrained(loaded(base), str(one), adapter_name="one")
    theirs.load_adapter(str(two), adapter_name="two")
    # PEFT's "linear" sums the factors, and so makes products of one adapter's with the other's; "cat" is the sum of
    # delta-W, and takes no negative weight
    before, after = tensors(base), tensors(tmp_path / "out")
    summed = 0
    for name, module in theirs.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = 0.7 * module.get_delta_weight("one") - 0.3 * module.get_delta_weight("two")
            assert torch.allclose(after[f"{name}.weight"], before[f"{name}.weight"] + delta, atol=1e-5)
            summed += 1
    assert summed == 2 * len(options["target_modules"])
    merge(home, base, tmp_path / "positive", {one: 0.7, two: 0.3})
    theirs.add_weighted_adapter(["one", "two"], [0.7, 0.3], "both", combination_type="cat")
    theirs.set_adapter("both")
    assert torch.allclose(logits(loaded(tmp_path / "positive")), logits(theirs), atol=1e-4)


def test_weights_of_what_is_no_sum(tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = tiny_bases["llama"]
    dora = saved_by_peft(loaded(base), tmp_path / "dora", use_dora=True, **LINEAR)
    whole = saved_by_peft(loaded(base), tmp_path / "whole", bias_step=0.1, modules_to_save=["norm"], **LINEAR)
    merge(home, base, tmp_path / "out", {dora: 0.5, whole: 2.0})
    before, after = tensors(base), tensors(tmp_path / "out")
    first, second = (adapted(base, path, merged=True).state_dict() for path in (dora, whole))
    for name, item in before.items():
        wanted = item + 0.5 * (first[name] - item) + 2.0 * (second[name] - item)
        assert torch.allclose(after[name], wanted, atol=1e-5)
    assert not torch.equal(after["model.norm.weight"], before["model.norm.weight"])


def test_keys_without_the_models_prefix(tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_bases["gpt2"], tmp_path / "base")
    renamed = {name.removeprefix("transformer."): item for name, item in tensors(base).items()}
    renamed["h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)  # a mask, as GPT-2's checkpoint on the hub
    save_file(renamed, base / "model.safetensors", metadata={"format": "pt"})
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", **CONV)
    merge(home, base, tmp_path / "out", [adapter])
    assert tensors(tmp_path / "out").keys() == renamed.keys()
    assert torch.allclose(logits(loaded(tmp_path / "out")), logits(adapted(base, adapter)), atol=1e-4)


def test_another_dtype_is_rounded_to_once(tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = saved(loaded(tiny_bases["llama"]), tiny_bases["llama"], tmp_path / "base", "30KB")
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", **LINEAR)
    merge(home, base, tmp_path / "whole", [adapter])
    done = merge(home, base, tmp_path / "half", [adapter], dtype="fp16")
    whole, half = tensors(tmp_path / "whole"), tensors(tmp_path / "half")
    assert done.model.dtype == "fp16" and loaded(tmp_path / "half").dtype == torch.float16
    assert all(torch.equal(half[name], item.half()) for name, item in whole.items())
    metadata = files.read_json(tmp_path / "half" / INDEX)["metadata"]
    assert isinstance(metadata, dict) and metadata["total_size"] == sum(item.nbytes for item in half.values())


def test_it_says_how_it_was_made(llama_base: Base, home: Home, tmp_path: Path) -> None:
    adapter = saved_by_peft(loaded(llama_base.path), tmp_path / "adapter", **LINEAR)
    merge(home, llama_base.path, tmp_path / "out", {adapter: 0.5})
    about = files.read_json(tmp_path / "out" / "icmlora.json")
    assert about["schema"] == "icmlora.merged/1" and about["base"] == llama_base.reference().content()
    assert about["adapters"] == [
        {
            "name": adapter.name,
            "weight": 0.5,
            "task": None,
            "key": None,
            "sha256": files.sha256_file(adapter / "adapter_model.safetensors"),
            "config_sha256": files.sha256_file(adapter / "adapter_config.json"),
            "licence": None,
        }
    ]
    assert "peft" in json.dumps(about["versions"])
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"    0.5  {adapter.name}\n" in card and f"Base: `{llama_base.model_id}`" in card


def test_the_base_is_the_one_that_the_adapter_names(llama_base: Base, home: Home, tmp_path: Path) -> None:
    one = saved_by_peft(loaded(llama_base.path), tmp_path / "one", **LINEAR)
    assert base_name(find_shares([(str(one), 1.0)], home), home) == str(llama_base.path)
    two = shutil.copytree(one, tmp_path / "two")
    config = files.read_json(two / "adapter_config.json")
    files.write_json(two / "adapter_config.json", config | {"base_model_name_or_path": "org/another"})
    with pytest.raises(UsageError, match="for 2 bases"):
        base_name(find_shares([(str(one), 1.0), (str(two), 1.0)], home), home)
    with pytest.raises(WrongBaseError, match="org/another"):
        merge(home, llama_base.path, tmp_path / "out", [two])
    assert merge(home, llama_base.path, tmp_path / "out", [two], any_base_name=True).model.changed == 6
    files.write_json(two / "adapter_config.json", config | {"base_model_name_or_path": None})
    with pytest.raises(UsageError, match="does not say which base"):
        base_name(find_shares([(str(two), 1.0)], home), home)


def test_nothing_that_it_is_made_of_is_overwritten(llama_base: Base, home: Home, tmp_path: Path) -> None:
    base = shutil.copytree(llama_base.path, tmp_path / "models" / "base")
    adapter = saved_by_peft(loaded(base), tmp_path / "models" / "adapter", **LINEAR)
    for folder in (base, adapter, base.parent):
        written = {  # as if icmlora had written it
            "schema": "icmlora.served/1", "task": "x", "key": "k", "sha256": "0" * 64,
            "base": {"model_id": None, "revision": None, "weight_hash": None}, "licence": None, "versions": {},
        }  # fmt: skip
        files.write_json(folder / "icmlora.json", written)
    (tmp_path / "link").symlink_to(base)
    before = {path: path.read_bytes() for path in base.parent.rglob("*") if path.is_file()}
    for out in (base, adapter, base.parent, tmp_path / "link", base / ".." / "adapter"):
        with pytest.raises(UsageError, match=r"(is|holds) what it would be made of"):
            merge(home, base, out, [adapter], force=True)
    assert before == {path: path.read_bytes() for path in base.parent.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    merge(home, base, out, [adapter])
    with pytest.raises(AlreadyExistsError, match="exists"):
        merge(home, base, out, [adapter])
    merge(home, base, out, {adapter: 2.0}, force=True)
    assert files.read_json(out / "icmlora.json")["adapters"][0]["weight"] == 2.0
    (out / "icmlora.json").unlink()
    with pytest.raises(AlreadyExistsError, match="not something that icmlora wrote"):
        merge(home, base, out, [adapter], force=True)


def test_what_cannot_be_merged(tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = tiny_bases["llama"]
    tokens = saved_by_peft(loaded(base), tmp_path / "tokens", trainable_token_indices=[3, 4], **LINEAR)
    with pytest.raises(UnsupportedAdapterError, match=r"single tokens of model\.embed_tokens"):
        merge(home, base, tmp_path / "out", [tokens])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says that there is no bias
        biased = saved_by_peft(loaded(base), tmp_path / "biased", lora_bias=True, **LINEAR)
    with pytest.raises(UnsupportedAdapterError, match=r"changes .*\.bias, which the base does not have"):
        merge(home, base, tmp_path / "out", [biased])
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", **LINEAR)
    small = shutil.copytree(base, tmp_path / "small")
    save_file(
        {name: item.to(torch.float8_e4m3fn) for name, item in tensors(base).items()},
        small / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UnsupportedAdapterError, match="F8_E4M3"):
        merge(home, small, tmp_path / "out", [adapter], any_base_name=True)
    with pytest.raises(WrongBaseError):
        merge(home, tiny_bases["gpt2"], tmp_path / "out", [adapter], any_base_name=True)
    with pytest.raises(CorruptFileError, match="not finite in F16"):
        merge(home, base, tmp_path / "out", {adapter: 1e7}, dtype="fp16")
    with pytest.raises(UsageError, match="the weight of x is nan"):
        find_shares([("x", float("nan"))], home)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".tmp-*"))


DIES = """
import os, signal, sys
from pathlib import Path
from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.merge.merge import find_shares, run

def die(progress):
    if progress.done == progress.total and progress.items_done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

home, (base, adapter, out) = Home.from_environment(), sys.argv[1:]
run(find_shares([(adapter, 1.0)], home), Path(out), pull(base, home, offline=True), force=True, on_progress=die)
"""


def test_a_kill_leaves_nothing_that_looks_whole(tiny_bases: dict[str, Path], home: Home, tmp_path: Path) -> None:
    base = saved(loaded(tiny_bases["llama"]), tiny_bases["llama"], tmp_path / "base", "30KB")
    adapter = saved_by_peft(loaded(base), tmp_path / "adapter", **LINEAR)
    out = tmp_path / "out"
    command = [sys.executable, "-c", DIES, str(base), str(adapter), str(out)]
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    (left,) = tmp_path.glob(".tmp-*")
    assert not out.exists() and not (left / "icmlora.json").exists() and any(left.glob("*.safetensors"))
    merge(home, base, out, [adapter])
    assert not left.exists()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
