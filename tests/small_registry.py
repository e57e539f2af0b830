"""A registry with real files and no torch: tasks, adapters and generators as icmlora writes them, in milliseconds."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import checksums, files
from icmlora_cli.disk.home import Home
from icmlora_cli.manifests.adapter import AdapterAbout, AdapterCheckpoint
from icmlora_cli.registry.adapters import CONFIG, WEIGHTS, AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base, BaseFile, BaseStore
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec

BASE = "tiny"
KEY = "0123456789ab"
NETWORK: Mapping[str, object] = {
    "network": {
        "arch": "token",
        "places": [[0, 0]],
        "width": 2,
        "hidden": 4,
        "latent_dim": 2,
        "hidden_dim": 4,
        "code_dim": 4,
    },
    "layout": {"modules": [["model.layers.0.self_attn.q_proj", 4, 4]], "fan_in_fan_out": False},
    "base_model": BASE,
    "rank": 2,
    "frame": None,
}


def safetensors(numbers: int, seed: int = 0, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with one fp32 tensor [numbers]."""
    data = struct.pack(f"<{numbers}f", *(float((index * 37 + seed) % 101) for index in range(numbers)))
    header: dict[str, object] = {"x": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, len(data)]}}
    if metadata is not None:
        header["__metadata__"] = dict(metadata)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def lora(ranks: Sequence[int], dtype: str = "F32", seed: int = 0) -> bytes:
    """Return a safetensors file with a LoRA on one module [20, 24] of each rank, its numbers all ``seed``'s byte."""
    width = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
    header: dict[str, object] = {}
    end = 0
    for layer, rank in enumerate(ranks):
        for side, shape in (("A", [rank, 24]), ("B", [20, rank])):
            begin, end = end, end + shape[0] * shape[1] * width
            name = f"base_model.model.layers.{layer}.q_proj.lora_{side}.weight"
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([seed]) * end


@dataclass(frozen=True)
class SmallRegistry:
    """A registry, and what puts things into it.

    Args:
        home: its folders.
    """

    home: Home

    def task(self, name: str, word: str = "cat") -> Task:
        """Register a task of 40 examples."""
        values = {"name": name, "description": f"Say {word}.", "examples": [{"input": "a", "output": "b"}]}
        rows = [Example(f"word {index}", word) for index in range(40)]
        return TaskStore(self.home).add(TaskSpec.model_validate(values), rows)[0]

    def base(self, name: str = BASE) -> Base:
        """Record a base whose weights lie in icmlora's cache."""
        folder = BaseStore(self.home).folder(name)
        files.write_bytes(folder / "model.safetensors", safetensors(50))
        files.write_text(folder / "config.json", "{}\n")
        held = tuple(
            BaseFile(path.name, path.stat().st_size, files.sha256_file(path)) for path in sorted(folder.iterdir())
        )
        base = Base(name, name, None, folder, "w" * 64, "wheel", None, sum(i.bytes for i in held), "Tiny", held)
        return BaseStore(self.home).record(base)

    def adapter(
        self,
        task: str,
        *,
        base: str = BASE,
        key: str = KEY,
        seed: int = 0,
        with_checksums: bool = True,
        weights: Sequence[bytes] = (),
    ) -> Path:
        """Write a finished adapter of two checkpoints.

        Args:
            task: the task's name.
            base: slug of the base.
            key: the adapter's.
            seed: of the weights.
            with_checksums: False: as the first version wrote it.
            weights: of the two checkpoints, where they are not to be made from the seed.
        """
        folder = self.home.adapters / base / task / key
        kept = []
        for index, step in enumerate((10, 20)):
            inner = folder / f"checkpoint-{step:05d}"
            files.write_bytes(inner / WEIGHTS, weights[index] if weights else safetensors(300, seed + step))
            files.write_json(inner / CONFIG, {"peft_type": "LORA", "r": 2, "lora_alpha": 4})
            sha256, config = files.sha256_file(inner / WEIGHTS), files.sha256_file(inner / CONFIG)
            kept.append(
                AdapterCheckpoint(
                    step=step,
                    folder=inner.name,
                    sha256=sha256,
                    bytes=files.folder_bytes(inner),
                    **({"config_sha256": config} if with_checksums else {}),
                )
            )
        record = AdapterRecord(
            task=task,
            key=key,
            base=base,
            weight_hash="w" * 64,
            data_hash="d" * 64,
            created="2026-01-01T00:00:00+00:00",
            checkpoints=tuple(kept),
            figures={"loss": 1e-05, "seconds": 3.0},
            about=AdapterAbout(model_id=base, recipe={}),
            folder=folder,
        )
        AdapterStore(self.home).record(record)
        if not with_checksums:
            files.write_json(folder / "manifest.json", record.as_dict())
        return folder

    def generator(self, name: str, seed: int = 0, key: str = "k" * 16) -> Path:
        """Write a generator, its manifest last."""
        folder = self.home.generators / name
        with files.new_folder(folder) as temporary:
            files.write_bytes(temporary / "generator.safetensors", safetensors(400, seed))
            files.write_text(temporary / "README.md", f"# {name}\n")
            value = {
                "schema": "icmlora.generator/1",
                **NETWORK,
                "sha256": files.sha256_file(temporary / "generator.safetensors"),
                "card_sha256": files.sha256_file(temporary / "README.md"),
                "key": key,
                "base": {"name": BASE, "weight_hash": "w" * 64},
                "tasks": {"say_cat": "Say cat."},
                "figures": {"seconds": 5.0},
                "command": f"icmlora train --name {name}",
            }
            checksums.write_manifest(temporary / "generator.json", value)
        return folder

    def fill(self) -> None:
        """Put two tasks, their adapters, a base and a generator in."""
        self.base()
        for seed, word in enumerate(("cat", "dog")):
            self.task(f"say_{word}", word)
            self.adapter(f"say_{word}", seed=seed)
        self.generator("default")


def tree(root: Path) -> dict[str, bytes]:
    """Return every file below a folder: its path to its bytes. Locks are left out."""
    found = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith("lock"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def flip(path: Path, at: int = -1, bit: int = 0) -> None:
    """Turn over one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(bytes(data))


def cut(path: Path, off: int = 3) -> None:
    """Take the last bytes off a file."""
    path.write_bytes(path.read_bytes()[:-off])
