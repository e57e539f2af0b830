"""What is fuzzed: a reader is a line of ``READERS``, with an input that it takes, which is then changed."""

import hashlib
import io
import json
import struct
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zstandard
from pydantic import BaseModel

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.spec_yaml import load_spec, load_yaml
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.safetensors_header import check_safetensors
from icmlora_cli.manifests.base import BaseManifest
from icmlora_cli.manifests.foreign import SafetensorsIndex
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.manifests.output import read_output
from icmlora_cli.manifests.remains import read_remains
from icmlora_cli.manifests.task import TaskManifest
from icmlora_cli.registry.adapters import read_record
from icmlora_cli.registry.base_files import licence_of
from icmlora_cli.registry.lora_header import lora_format
from icmlora_cli.registry.upkeep.archive import LISTING, SCHEMA
from icmlora_cli.registry.upkeep.archive_reader import unpack
from icmlora_cli.registry.upkeep.checks import manifest_flaws
from icmlora_cli.report.card_check import check_card
from icmlora_cli.report.result import read_result
from icmlora_cli.serving.http.schema import ChatBody, CompletionBody, parse
from icmlora_cli.tasks.sources import read_examples
from icmlora_cli.tasks.task_file import read_task_file
from icmlora_cli.weights.foreign.config import read_settings
from icmlora_cli.weights.foreign.headers import read_header
from icmlora_cli.weights.foreign.open import open_foreign
from icmlora_cli.weights.gguf.target import GgufTarget
from icmlora_cli.weights.gguf.tokenizer import check_tokenizer
from icmlora_cli.workflows.gen.batch_file import read_batch


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Args:
        file: the name under which an input is written.
        seed: an input that it takes.
        read: reads that file; gives a value or raises an IcmloraError.
    """

    file: str
    seed: bytes
    read: Callable[[Path], object]


class Loose(BaseModel):
    """A model that takes any keys."""

    steps: int = 1
    rest: dict[str, float] = {}


def safetensors(header: bytes, numbers: bytes = b"") -> bytes:
    """Return a safetensors file of a header and what follows it."""
    return struct.pack("<Q", len(header)) + header + numbers


def tar(listing: bytes, **others: bytes) -> bytes:
    """Return a tar file that begins with a listing."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in {LISTING: listing, **others}.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))
    return held.getvalue()


def _unpacked(path: Path) -> object:
    with tempfile.TemporaryDirectory(dir=path.parent) as into:
        packed = Path(into) / "x.tar.zst"
        packed.write_bytes(zstandard.ZstdCompressor(level=1).compress(path.read_bytes()))
        return unpack(packed, Path(into), most=1 << 20, on_listing=lambda things: None, on_file=lambda name: None)


def _stored(path: Path) -> object:
    check_safetensors(path)
    return lora_format(path)


def _manifest(path: Path) -> object:
    manifest_flaws(path, TaskManifest.known_keys())
    return TaskManifest.read(path)


def _settings(path: Path) -> object:
    found = read_settings(path.parent)
    return [found.rank_of("model.layers.0.self_attn.q_proj"), found.alpha_of("model.layers.0.self_attn.q_proj")]


def _folder(path: Path) -> object:
    (path.parent / "adapter_config.json").write_text(json.dumps(_CONFIG))
    return open_foreign(path.parent, None)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_TASK = b'name: t\ndescription: "D"\nexamples: &a\n- {input: 1, output: 0x1f}\nsplits: {test: .5, validation: 1e-1}\n'
_CHAT = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "temperature": 1e0}
_ROWS = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 1.5}
_SHAREGPT = {
    "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": [{"type": "text", "text": "b"}]}]
}
_CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "rank_pattern": {"a": 1}}
_CONFIG |= {"alpha_pattern": {"a": 2}, "modules_to_save": ["lm_head"], "init_lora_weights": True}
_HEADER = {"a.lora_A.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}
_PAIR = {
    "base_model.model.q_proj.lora_A.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
    "base_model.model.q_proj.lora_B.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [32, 64]},
}
_EMPTY = hashlib.sha256(b"").hexdigest()
_LISTING = {
    "schema": SCHEMA,
    "things": [{"kind": "task", "folder": "tasks/x", "files": [{"path": "task.json", "bytes": 0, "sha256": _EMPTY}]}],
}
_TASK_JSON = {
    "schema": "icmlora.task/1", "name": "t", "descriptions": ["D"], "metric": "exact_match", "split": "train",
    "template": {"kind": "plain", "prompt": "{input}", "answer": "{output}"}, "splits": {"test": 0.1}, "licence": None,
    "source": None, "family": None, "data_hash": "a", "counts": {"train": 1}, "examples_sha256": _EMPTY,
    "made": {"versions": {"torch": "2"}, "examples": {"rule": "alpaca", "not_read": ["a"]}},
}  # fmt: skip
_ADAPTER_JSON = {
    "schema": "icmlora.adapter/1", "task": "t", "key": "k", "base": "b", "weight_hash": "a", "data_hash": "a",
    "created": "now", "checkpoints": [{"step": 1, "folder": "checkpoint-1", "sha256": _EMPTY, "bytes": 1}],
    "figures": {"loss": 0.5}, "about": {"versions": {"torch": "2"}, "imported": {"from": "x", "files": [{"name": "a"}],
    "inexact": [{"a": 1}]}},
}  # fmt: skip
_GENERATOR_JSON = {
    "schema": "icmlora.generator/1", "base_model": "b", "rank": 1, "sha256": _EMPTY, "key": "k", "tasks": {"t": "D"},
    "network": {"arch": "a", "places": [[0, 0]], "width": 1, "hidden": 1, "latent_dim": 1, "hidden_dim": 1,
    "code_dim": 1}, "layout": {"modules": [["q", 1, 1]]}, "base": {"name": "b", "weight_hash": "a"},
    "builtin_tasks": ["a"], "adapters": {"t": "k"}, "sources": [{"task": "t", "key": "k"}], "cost": {"seconds": 1},
    "curve": [[1, {"loss": 1.0}], [1, 0.5, 0.5]],
}  # fmt: skip
_BASE_JSON = {
    "schema": "icmlora.base/1", "name": "b", "model_id": "m", "revision": None, "path": ".", "weight_hash": "a",
    "origin": "o", "licence": None, "bytes": 1, "architecture": "A",
    "files": [{"name": "a", "bytes": 1, "sha256": "a"}],
}  # fmt: skip
_OUTPUT_JSON = {
    "schema": "icmlora.generated/1", "task_text": "D", "merged": False, "seed": 0, "generator": {"name": "g"},
    "base": {"model_id": "b"}, "tasks": {"t": "D"}, "licences": ["mit"], "sources": [{"task": "t", "key": "k"}],
    "options": {"a": [1]}, "selection": {"a": 1}, "files": {"a": {"bytes": 1, "sha256": _EMPTY}},
}  # fmt: skip
_TARGET = {"architectures": ["LlamaForCausalLM"], "num_attention_heads": 2, "num_hidden_layers": 2}
_TOKENIZER: dict[str, object] = {
    "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}, "normalizer": None, "added_tokens": [],
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]},
}  # fmt: skip
_FIGURE = {"value": 0.5, "low": 0.0, "high": 1.0}
_RESULT = {
    "schema": "icmlora.result/2", "protocol": "bare", "generator": None, "recipe": {"limit": 1}, "vectors": None,
    "base": {"name": "b", "model_id": "m", "revision": None, "weight_hash": "a"}, "methods": [], "tasks": [],
    "scores": [{"task": "t", "method": "m", "reason": None, "figures": {"nll": _FIGURE}, "reconstruction": None,
    "unrelated": _FIGURE, "about": {}, "outputs": [{"input": "a", "expected": "a", "output": "a", "exact": True}]}],
    "means": [], "comparisons": [], "text_specific": [], "unrelated": [], "adapters": None, "storage": None,
    "made": {"versions": {"torch": "2"}, "command": "c", "device": "cpu", "dtype": "fp32"},
}  # fmt: skip
_CARD = b"---\nbase_model: a/b\nlicense: mit\ntags: [lora]\n---\n# A card\n"

READERS = {
    "yaml": Reader("x.yaml", b"a: &x {b: [1, 2.5, ~]}\n? c\n: <<: *x\n", load_yaml),
    "spec": Reader("x.yaml", b"steps: 3\nrest: {a: 1.5, b: .inf}\n", lambda path: load_spec(path, Loose)),
    "recipe": Reader("x.yaml", b"steps: 3\nlearning_rate: 1e-3\n", lambda path: load_spec(path, HarvestRecipe)),
    "train recipe": Reader(
        "x.yaml",
        b"data: {vectors: {layer: 0.5}, target_modules: [q_proj]}\n",
        lambda path: load_spec(path, TrainRecipe),
    ),
    "task file": Reader("x.yaml", _TASK, read_task_file),
    "batch": Reader("x.json", b'[{"text": "a", "name": "b"}, "c"]', read_batch),
    "batch yaml": Reader("x.yaml", b'[{"text": "a", "name": "b"}, "c"]', read_batch),
    "batch text": Reader("x.txt", b"one\ntwo\n", read_batch),
    "jsonl": Reader("x.jsonl", (json.dumps(_ROWS) + "\n").encode() * 2, read_examples),
    "sharegpt": Reader("x.jsonl", (json.dumps(_SHAREGPT) + "\n").encode() * 2, read_examples),
    "json": Reader("x.json", _json({"data": [_ROWS]}), read_examples),
    "csv": Reader("x.csv", b'\xef\xbb\xbf,input,output\r\n0,"a ""b""",c\r\n', read_examples),
    "passages": Reader("x.txt", b"One. Two.\n\nThree.\n", lambda path: read_examples(path, text=True)),
    "safetensors": Reader("x.safetensors", safetensors(_json(_HEADER), bytes(8)), read_header),
    "stored safetensors": Reader(
        "x.safetensors",
        safetensors(_json(_HEADER), bytes(8)),
        _stored,
    ),
    "adapter folder": Reader("adapter_model.safetensors", safetensors(_json(_PAIR), bytes(64)), _folder),
    "adapter config": Reader("adapter_config.json", _json(_CONFIG), _settings),
    "archive": Reader("x.tar", tar(_json(_LISTING), **{"tasks/x/task.json": b""}), _unpacked),
    "index": Reader("x.json", _json({"metadata": {"total_size": 1}, "weight_map": {"a": "b"}}), SafetensorsIndex.read),
    "task manifest": Reader("task.json", _json(_TASK_JSON), _manifest),
    "adapter manifest": Reader("manifest.json", _json(_ADAPTER_JSON), read_record),
    "generator manifest": Reader("generator.json", _json(_GENERATOR_JSON), GeneratorManifest.read),
    "base manifest": Reader("base.json", _json(_BASE_JSON), BaseManifest.read),
    "output manifest": Reader("icmlora.json", _json(_OUTPUT_JSON), lambda path: read_output(path.parent)),
    "result": Reader("result.json", _json(_RESULT), read_result),
    "remains": Reader("task.json", _json(_TASK_JSON), read_remains),
    "card": Reader("README.md", _CARD, lambda path: [licence_of(path.parent), check_card(path)]),
    "gguf target": Reader("config.json", _json(_TARGET), lambda path: GgufTarget.of(files.read_json(path))),
    "tokenizer": Reader("tokenizer.json", _json(_TOKENIZER), lambda path: check_tokenizer(path.parent)),
    "chat": Reader("x.json", _json(_CHAT), lambda path: parse(ChatBody, path.read_bytes())),
    "completion": Reader(
        "x.json",
        _json({"model": "m", "prompt": [1], "stop": ["a"]}),
        lambda path: parse(CompletionBody, path.read_bytes()),
    ),
}
