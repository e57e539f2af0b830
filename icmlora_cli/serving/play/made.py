"""The adapters that were made on the page, the last ones of which stay in memory, and their files."""

import io
import re
import secrets
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cachetools import LRUCache

from icmlora_cli.errors import NotFoundError, RequestError, UnsupportedAdapterError
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.adapter_form import Format
from icmlora_cli.workflows.gen.generator import AdapterGenerator, GeneratedAdapter
from icmlora_cli.workflows.gen.write import GGUF_LORA, check_format

FileKind = Literal["zip", "gguf"]
FORMATS: dict[FileKind, Format] = {"zip": "peft", "gguf": "gguf"}
LONGEST_NAME = 40  # characters of a file's name that come from the task text


@dataclass(frozen=True)
class DownloadFile:
    """A file for the user to keep.

    Args:
        name: The name of the file, in plain ASCII.
        data: The bytes of the file.
    """

    name: str
    data: bytes


@dataclass(frozen=True, eq=False)
class MadeAdapter:
    """An adapter that was made on the page.

    Args:
        text: The task in words.
        generated: The adapter, with what was tried for it.
        adapter: The same adapter, with its tensors where the base's are.
        generator: What made it, with the request and the examples.
        seconds: The wall time of the making, in seconds.
        id: A random name by which the page asks for it.
    """

    text: str
    generated: GeneratedAdapter
    adapter: Adapter
    generator: AdapterGenerator
    seconds: float
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def bytes(self) -> int:
        """The size of the adapter's numbers in fp32, in bytes."""
        factors = self.generated.adapter.factors.values()
        return 4 * sum(item.lora_a.numel() + item.lora_b.numel() for item in factors)

    def summary(self) -> dict[str, object]:
        """Return what the page shows of the adapter, in JSON's types."""
        evidence = self.generated.evidence
        return {
            "id": self.id,
            "text": self.text,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "rank": self.generated.adapter.rank,
            "modules": len(self.generated.adapter.factors),
            "examples": len(self.generator.inputs.demonstrations),
            "template": self.generator.options.template,
            "evidence": None
            if evidence is None
            else {
                "examples": evidence.examples,
                "folds": evidence.folds,
                "steps": evidence.steps,
                "out_of_time": evidence.out_of_time,
                "seconds": evidence.seconds,
                "kept": evidence.kept,
                "tried": [vars(item) for item in evidence.tried],
            },
        }

    def file(self, kind: FileKind) -> DownloadFile:
        """Return the adapter as a zip of its PEFT folder, or as a LoRA in GGUF; both are what ``icmlora gen`` writes.

        Raises:
            RequestError: If the format cannot express an adapter of this base.
        """
        options = replace(self.generator.options, format=FORMATS[kind])
        generator = replace(self.generator, request=replace(self.generator.request, options=options))
        try:
            check_format(generator.request, generator.base)
        except UnsupportedAdapterError as error:
            raise RequestError(error.message) from error
        with tempfile.TemporaryDirectory(prefix="icmlora-play-") as root:
            folder = Path(root) / "adapter"
            generator.write(folder, self.text, self.generated, time.monotonic())
            data = (folder / GGUF_LORA).read_bytes() if kind == "gguf" else zipped(folder)
        return DownloadFile(f"{file_stem(self.text)}.{kind}", data)


class MadeAdapters:
    """The adapters that were made last.

    Args:
        room: How many are kept.
    """

    def __init__(self, room: int) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._made: LRUCache[str, MadeAdapter] = LRUCache(room)

    def add(self, made: MadeAdapter) -> None:
        """Keep an adapter; where there is no room, the one that was used longest ago goes."""
        with self._lock:
            self._made[made.id] = made

    def get(self, name: str) -> MadeAdapter:
        """Return an adapter by its random name.

        Raises:
            NotFoundError: If it is not in memory, or never was.
        """
        with self._lock:
            made = self._made.get(name)
        if made is None:
            raise NotFoundError("this adapter is no longer in memory; make it again")
        return made

    def all(self) -> tuple[MadeAdapter, ...]:
        """Return the adapters that are in memory."""
        with self._lock:
            return tuple(self._made.values())


def zipped(folder: Path) -> bytes:
    """Return a folder's files as a zip, which does not compress them: numbers hardly get smaller."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return buffer.getvalue()


def file_stem(text: str) -> str:
    """Return a file's name, without suffix, that is made of a text's words."""
    name = re.sub(r"[^a-z0-9]+", "-", text.casefold())[:LONGEST_NAME].strip("-")
    return name or "adapter"
