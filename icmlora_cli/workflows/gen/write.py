"""Writes a generated adapter as PEFT or GGUF, alone or merged into its base, with its card and ``icmlora.json``."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.meta_model import checkpoint_of
from icmlora_cli.manifests.output import Generated
from icmlora_cli.manifests.parts import GeneratorReference, HashedFile
from icmlora_cli.provenance.licences import no_derivatives
from icmlora_cli.provenance.versions import ABOUT, command_line, versions
from icmlora_cli.registry.bases import Base
from icmlora_cli.report.cards import CARD, CardData, adapter_card, merged_card
from icmlora_cli.weights.adapter import CONFIG, WEIGHTS, Adapter, check_writable, write_adapter
from icmlora_cli.weights.adapter_form import Format, dtype_name
from icmlora_cli.weights.gguf.lora import Numbers, write_lora
from icmlora_cli.weights.gguf.model import Stored, check_model
from icmlora_cli.weights.gguf.model import write_model as write_gguf
from icmlora_cli.weights.gguf.target import GgufTarget
from icmlora_cli.weights.gguf.tokenizer import check_tokenizer
from icmlora_cli.weights.merge import merge
from icmlora_cli.weights.stored.changes import combined, steps_of
from icmlora_cli.workflows.gen.options import GenRequest, recorded
from icmlora_cli.workflows.merge.write import WrittenModel, write_model
from icmlora_cli.workflows.output import check_apart
from icmlora_cli.workflows.progress import OnProgress

GGUF_LORA, GGUF_MODEL = "adapter.gguf", "model.gguf"


@dataclass(frozen=True)
class Provenance:
    """What an adapter was made from, for its card and its ``icmlora.json``.

    Args:
        generator: The generator that made it.
        folder: The folder of the generator.
        base: The base model of the generator.
        text: The task in words.
        seed: The seed of z; None stands for the prior's mean.
        merged: Whether a whole merged model is written.
        format: The format that is written.
    """

    generator: Generator
    folder: Path
    base: Base
    text: str
    seed: int | None
    merged: bool
    format: Format = "peft"

    def manifest(self) -> Generated:
        """Return the content of ``icmlora.json``, without what options add."""
        generator, data = self.generator.manifest, CardData.of(self.generator.manifest)
        return Generated(
            schema="icmlora.generated/1",
            task_text=self.text,
            merged=self.merged,
            seed=self.seed,
            generator=GeneratorReference(name=self.folder.name, key=generator.key, sha256=generator.sha256),
            base=self.base.reference(),
            tasks=generator.tasks,
            licences=generator.licences,
            unlicensed=data.unlicensed,
            datasets=tuple(data.datasets),
            no_derivatives=self.no_derivatives,
            sources=generator.sources,
            cost=generator.cost,
            versions=versions(),
            command=command_line(),
        )

    @property
    def data(self) -> CardData:
        """The licences and data sets of what the generator learned from; a merged model adds the base's licence."""
        data = replace(CardData.of(self.generator.manifest), loader=self.base.loader)
        if not self.merged or self.base.licence is None:
            return data
        return replace(data, licences=sorted({*data.licences, self.base.licence}))

    @property
    def no_derivatives(self) -> tuple[str, ...]:
        """The licences among these that forbid derivatives."""
        return no_derivatives(self.data.licences)

    def card(self, remarks: Sequence[str]) -> str:
        """Return the text of README.md, with remarks on the options."""
        name, model, data = self.folder.name, self.base.model_id, self.data
        if self.merged:
            return merged_card(
                base_model=model,
                task_text=self.text,
                generator=name,
                data=data,
                remarks=remarks,
                gguf=GGUF_MODEL if self.format == "gguf" else None,
            )
        return adapter_card(
            base_model=model,
            task_text=self.text,
            generator=name,
            tasks=len(self.generator.manifest.tasks),
            seed=self.seed,
            data=data,
            remarks=remarks,
            gguf=GGUF_LORA if self.format == "gguf" else None,
        )


def identity(manifest: Generated) -> list[object]:
    """Return the values of an ``icmlora.json`` that decide the other files: text, generator, base and options."""
    generator = manifest.generator
    return [manifest.task_text, [generator.key, generator.sha256], manifest.base.weight_hash, recorded(manifest)]


def check_format(request: GenRequest, base: Base) -> None:
    """Check by the base's configuration and tokenizer that the format can express what is asked for.

    Raises:
        CorruptFileError: If one of these files is damaged.
        UnsupportedAdapterError: If the format cannot express it.
    """
    if request.options.format != "gguf":
        return
    path = base.path / "config.json"
    if request.merged:
        check_model(files.read_json(path), where=str(path))
        check_tokenizer(base.path)
    else:
        GgufTarget.of(files.read_json(path), where=str(path))


def is_whole(folder: Path, request: GenRequest) -> bool:
    """Return whether a folder has the files that gen writes for a request."""
    if request.options.format == "gguf":
        return (folder / (GGUF_MODEL if request.merged else GGUF_LORA)).is_file()
    if request.merged:
        return (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def write(
    out: Path,
    adapter: Adapter,
    provenance: Provenance,
    loaded: LoadedBase,
    *,
    dtype: Stored | None,
    added: Mapping[str, object],
    remarks: Sequence[str],
    on_progress: OnProgress,
) -> WrittenModel | None:
    """Write the folder as a whole; an earlier one is replaced, once the new one is complete.

    Args:
        out: The folder to write.
        adapter: The generated adapter.
        provenance: What the adapter was made from.
        loaded: The base; its weights are the same afterwards.
        dtype: The number format of a merged model's weights, where None keeps that of the base, or of a LoRA in GGUF.
        added: The entries that options add to ``icmlora.json``.
        remarks: The sentences that options add to the card.
        on_progress: Called for each file of a merged model.

    Returns:
        The number format and hashes of a merged model in safetensors; None for anything else.

    Raises:
        CorruptFileError: If the adapter does not fit the base or its files, or a number of it is not finite.
        OutOfSpaceError: If the disk is full.
        UnsupportedAdapterError: If the base's files cannot be changed.
        UsageError: If the folder is the base's, or holds it.
    """
    check_apart(out, [provenance.base.path])
    check_writable(adapter, loaded.shapes, out.absolute())
    model = None
    with files.new_folder(out.absolute()) as folder:
        if provenance.merged:
            model = _write_merged(folder, loaded, adapter, provenance, dtype, on_progress)
        elif provenance.format == "gguf":
            target = GgufTarget.of(loaded.model.config.to_dict())
            numbers: Numbers = "fp16" if dtype == "fp16" else "fp32"
            name, text = _title(provenance.text), provenance.text
            write_lora(folder / GGUF_LORA, adapter, target, name=name, description=text, dtype=numbers)
        else:
            write_adapter(folder, adapter, loaded.shapes, revision=provenance.base.revision)
        files.write_text(folder / CARD, provenance.card(remarks))
        about = Generated.of(provenance.manifest().content() | dict(added))
        about.model_copy(update={"files": listed(folder, model.sha256 if model else None)}).write(folder / ABOUT)
    return model


def listed(folder: Path, known: Mapping[str, str] | None = None) -> dict[str, HashedFile]:
    """Return the size in bytes and the SHA-256 of each file except the card, which users may edit.

    Args:
        folder: The folder whose files are listed.
        known: The hashes that are known already, by the file's name.
    """
    known = known or {}
    return {
        path.name: HashedFile(bytes=path.stat().st_size, sha256=known.get(path.name) or files.sha256_file(path))
        for path in sorted(folder.iterdir())
        if path.name != CARD
    }


def _title(text: str) -> str:
    """Return a text as one line of at most 100 characters."""
    return " ".join(text.split())[:100]


def _write_merged(
    folder: Path,
    loaded: LoadedBase,
    adapter: Adapter,
    provenance: Provenance,
    dtype: Stored | None,
    on_progress: OnProgress,
) -> WrittenModel | None:
    """Write the base with the adapter merged into it, as GGUF from a copy in fp32, so that it is rounded only once."""
    if provenance.format == "gguf":
        model = copy.deepcopy(loaded.model).float()
        merge(model, adapter)
        write_gguf(
            folder / GGUF_MODEL,
            dict(model.named_parameters()),
            model.config.to_dict(),
            loaded.base.path,
            name=_title(provenance.text),
            dtype=dtype or dtype_name(loaded.dtype),
        )
        return None
    assert dtype != "q8_0"  # GenRequest.check allows it for GGUF alone
    checkpoint = checkpoint_of(provenance.base)
    changes = combined([(steps_of(adapter, checkpoint.shapes), 1.0)])
    return write_model(folder, checkpoint, changes, dtype=dtype, on_progress=on_progress)
