"""Writes adapters as folders for another server to load, in the plainest form of LoRA.

A folder is written when its adapter is first asked for, and stays in the cache under the hash of all that decides it.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import IcmloraError
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.meta_model import base_shapes
from icmlora_cli.manifests.output import ServedFolder
from icmlora_cli.manifests.parts import BaseReference
from icmlora_cli.provenance.versions import ABOUT, versions
from icmlora_cli.registry.adapters import AdapterRecord
from icmlora_cli.registry.bases import Base, canonical_name
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.serving.sources import AdapterSource, AdapterSources
from icmlora_cli.weights.adapter import CONFIG, Adapter, write_adapter
from icmlora_cli.weights.adapter_form import servable
from icmlora_cli.workflows.base.pull import resolve
from icmlora_cli.workflows.gen.generate import base_name, check, load_adapter_generator
from icmlora_cli.workflows.gen.generator import AdapterGenerator
from icmlora_cli.workflows.gen.options import GenInputs, GenRequest
from icmlora_cli.workflows.gen.write import Provenance, write
from icmlora_cli.workflows.progress import silent

VERSION = 1  # the version of the form in which folders are written, which is a part of their key
REMARK = "In the form that servers take: all modules at rank {rank}, filled up with zeros, all scaling within lora_B."


@dataclass(frozen=True)
class Folders:
    """Finds or writes the folders of one base's adapters, for the resolver of vLLM.

    Base and generator are loaded when they are first needed. Only one thread may use an object.

    Args:
        home: The registry and its cache.
        generator: The name or folder of the generator; with None, only registered tasks are served.
        base: The name of the base model; None takes the base that the generator was trained for.
        model: Another name by which the server knows the base.
        device: The torch device on which the base reads task texts.
        max_adapters: How many folders may exist; once there are so many, no more are written.
    """

    home: Home
    generator: str | None = None
    base: str | None = None
    model: str | None = None
    device: str = "cpu"
    max_adapters: int = 1000

    @cached_property
    def _generator_folder(self) -> Path | None:
        return None if self.generator is None else GeneratorStore(self.home).find(self.generator)

    @cached_property
    def _base(self) -> Base:
        generator_base = base_name(self._generator_folder) if self._generator_folder else None
        return resolve(self.base or generator_base or "smollm2-135m", self.home)

    @cached_property
    def _generator_and_inputs(self) -> tuple[Generator, GenInputs] | None:
        return None if self._generator_folder is None else check(self._gen_request, self._base)

    @cached_property
    def _gen_request(self) -> GenRequest:
        assert self._generator_folder is not None
        return GenRequest(self._generator_folder)

    @cached_property
    def _adapter_generator(self) -> AdapterGenerator:
        assert self._generator_and_inputs is not None
        return load_adapter_generator(
            self._gen_request, *self._generator_and_inputs, self._base, self.home, self.device, silent
        )

    def serves(self, model: str) -> bool:
        """Tell whether a server's model is this base."""
        base = self._base
        return model in {base.name, base.model_id, str(base.path), self.model} or canonical_name(model) == base.name

    def folder(self, model: str, name: str) -> Path | None:
        """Return the PEFT folder of an adapter, which is written first if it is not there.

        Args:
            model: The name that the server has for its base, which becomes the folder's ``base_model_name_or_path``.
            name: ``icm:TASK TEXT``, or the name of a registered task.

        Returns:
            The folder; None if the model is another base, or nothing here has that name.

        Raises:
            UsageError: If the task text is empty or too long.
            IcmloraError: If there are too many folders already, or the adapter cannot be made or read.
        """
        if not self.serves(model):
            return None
        sources = AdapterSources(
            self._base, self.home, self._generator_and_inputs[0] if self._generator_and_inputs else None
        )
        source = sources.find(name)
        if source is None:
            return None
        folder = self.home.served / files.sha256_json([VERSION, source.key, model])
        if (folder / CONFIG).is_file():
            return folder
        self.home.served.mkdir(parents=True, exist_ok=True)
        with FileLock(self.home.served / ".lock"):  # all servers on this cache share it
            if not (folder / CONFIG).is_file():
                self._check_room()
                self._write(folder, source, model, sources)
        return folder

    def _check_room(self) -> None:
        if len(files.subfolders(self.home.served)) >= self.max_adapters:
            raise IcmloraError(
                f"there are {self.max_adapters:,} served adapters already, and no more are made",
                where=str(self.home.served),
                hint="stop the server and delete the folder, or allow more",
            )

    def _write(self, folder: Path, source: AdapterSource, model: str, sources: AdapterSources) -> None:
        adapter = sources.get(source, lambda text: self._adapter_generator.make(text).adapter)
        plain = servable(replace(adapter, base_model=model))
        if source.record is not None:
            _write_harvested(folder, plain, source.record, self._base)
            return
        assert source.text is not None and self._generator_and_inputs is not None
        provenance = Provenance(
            self._generator_and_inputs[0], self._gen_request.folder, self._base, source.text, None, False
        )
        write(
            folder, plain, provenance, self._adapter_generator.loaded,
            dtype=None, added={}, remarks=[REMARK.format(rank=plain.rank)], on_progress=silent,
        )  # fmt: skip


def _write_harvested(folder: Path, adapter: Adapter, record: AdapterRecord, base: Base) -> None:
    manifest = ServedFolder(
        schema="icmlora.served/1",
        task=record.task,
        key=record.key,
        sha256=record.checkpoints[-1].sha256,
        base=BaseReference(model_id=base.model_id, revision=base.revision, weight_hash=base.weight_hash),
        licence=record.about.licence,
        versions=versions(),
    )
    with files.new_folder(folder) as new:
        write_adapter(new, adapter, base_shapes(base), revision=base.revision)
        manifest.write(new / ABOUT)
