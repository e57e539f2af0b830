"""What is fuzzed: a reader is a line of ``READERS``, with an input that it takes, which is then changed."""

import io
import json
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.spec_yaml import load_spec, load_yaml
from icmlora_cli.registry.upkeep.archive_reader import unpack
from icmlora_cli.serving.http.schema import ChatBody, parse
from icmlora_cli.tasks.sources import read_examples
from icmlora_cli.tasks.task_file import read_task_file
from icmlora_cli.weights.foreign.config import read_settings
from icmlora_cli.weights.foreign.headers import read_header
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


def _safetensors() -> bytes:
    header = {"a.lora_A.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}
    data = json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data + bytes(8)


def _archive() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        item = tarfile.TarInfo("listing.json")
        item.size = 2
        tar.addfile(item, io.BytesIO(b"{}"))
    return held.getvalue()


def _unpacked(path: Path) -> object:
    into = path.parent / "into"
    into.mkdir(exist_ok=True)
    return unpack(path, into, most=1 << 20, on_listing=lambda things: None, on_file=lambda name: None)


def _settings(path: Path) -> object:
    return read_settings(path.parent)


def _chat(path: Path) -> object:
    return parse(ChatBody, path.read_bytes())


_TASK = b'name: t\ndescription: "D"\nexamples: &a\n- {input: 1, output: 0x1f}\nsplits: {test: .5, validation: 1e-1}\n'
_CHAT = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "temperature": 1e0}
_ROWS = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 1.5}
_CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "rank_pattern": {"a": 1}}

READERS = {
    "yaml": Reader("x.yaml", b"a: &x {b: [1, 2.5, ~]}\n? c\n: <<: *x\n", load_yaml),
    "spec": Reader("x.yaml", b"steps: 3\nrest: {a: 1.5, b: .inf}\n", lambda path: load_spec(path, Loose)),
    "recipe": Reader("x.yaml", b"steps: 3\nlearning_rate: 1e-3\n", lambda path: load_spec(path, HarvestRecipe)),
    "task file": Reader("x.yaml", _TASK, read_task_file),
    "batch": Reader("x.json", b'[{"text": "a", "name": "b"}, "c"]', read_batch),
    "jsonl": Reader("x.jsonl", (json.dumps(_ROWS) + "\n").encode() * 2, read_examples),
    "json": Reader("x.json", json.dumps({"data": [_ROWS]}).encode(), read_examples),
    "csv": Reader("x.csv", b'\xef\xbb\xbf,input,output\r\n0,"a ""b""",c\r\n', read_examples),
    "safetensors": Reader("x.safetensors", _safetensors(), read_header),
    "adapter config": Reader(
        "adapter_config.json", json.dumps(_CONFIG).encode(), lambda path: read_settings(path.parent)
    ),
    "archive": Reader("x.tar", _archive(), _unpacked),
    "chat": Reader("x.json", json.dumps(_CHAT).encode(), _chat),
}
