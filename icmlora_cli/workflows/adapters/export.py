"""Export of one adapter: as a GGUF file for llama.cpp, or as a PEFT folder with its card."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, UsageError
from icmlora_cli.lm.meta_model import folder_shapes
from icmlora_cli.manifests.output import Exported
from icmlora_cli.manifests.parts import BaseReference
from icmlora_cli.provenance.licences import hub_datasets
from icmlora_cli.provenance.versions import ABOUT, command_line, versions
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base, BaseStore, local_folder, pull_command
from icmlora_cli.report.cards import CARD, CardData, kept_card
from icmlora_cli.weights.adapter import CONFIG, WEIGHTS, Adapter, check_writable, read_adapter
from icmlora_cli.weights.adapter_form import Format
from icmlora_cli.weights.foreign.open import open_adapter
from icmlora_cli.weights.foreign.plain import check_plain
from icmlora_cli.weights.gguf.lora import Numbers, write_lora
from icmlora_cli.weights.gguf.target import GgufTarget
from icmlora_cli.workflows.adapters.named import NamedAdapter, find_named
from icmlora_cli.workflows.gen.write import listed
from icmlora_cli.workflows.output import check_file, check_folder


@dataclass(frozen=True)
class AdapterExport:
    """An adapter that was written outside of the registry.

    Args:
        output: the GGUF file, or the PEFT folder.
        format: ``gguf`` or ``peft``.
        task: whose it is; None of a folder that the registry does not have.
        key: The key of its record; None where it is only a folder.
        base_model: what it is for.
        architecture: llama.cpp's name of that; None of a PEFT folder.
        modules: how many it is on.
        rank: the largest of its modules.
        bytes: The size of what was written, in bytes.
    """

    output: Path
    format: str
    task: str | None
    key: str | None
    base_model: str
    architecture: str | None
    modules: int
    rank: int
    bytes: int


def run(
    name: str,
    output: Path,
    home: Home,
    *,
    form: Format = "peft",
    dtype: Numbers | None = None,
    base: str | None = None,
    force: bool = False,
) -> AdapterExport:
    """Write an adapter as a file or folder of its own.

    Args:
        name: a task's name (its newest adapter), an adapter's key, or a PEFT folder.
        output: the file (GGUF) or folder (PEFT) to write.
        home: the registry.
        form: ``gguf`` or ``peft``.
        dtype: The dtype of the tensors in GGUF; None takes fp32.
        base: whose configuration GGUF needs: an alias, hub id or folder; what the adapter names by default.
        force: replace ``output``.

    Raises:
        AlreadyExistsError: if ``output`` is there, and ``force`` is not set or it is not icmlora's.
        CorruptFileError: if the adapter is damaged.
        NotFoundError: if there is no such adapter, or its base is not at hand.
        OutOfSpaceError: if the disk is full; ``output`` is then what it was before.
        UnsupportedAdapterError: if the adapter or its base cannot be said in GGUF; nothing is written.
        UsageError: if the options do not go together.
    """
    named = find_named(AdapterStore(home), name)
    if form == "gguf":
        check_file(output, force)
        return _gguf(named, output, home, dtype or "fp32", base)
    return _peft(named, output, home, dtype, force)


def _gguf(named: NamedAdapter, output: Path, home: Home, dtype: Numbers, base: str | None) -> AdapterExport:
    check_plain(named.folder, what="a LoRA in GGUF")
    adapter = open_adapter(named.folder, None) if named.record is None else read_adapter(named.folder)
    config = _config(home, base or adapter.base_model, named)
    target = GgufTarget.of(files.read_json(config), where=str(config))
    check_writable(adapter, folder_shapes(config.parent, base or adapter.base_model), output)
    title = named.record.task if named.record else named.folder.resolve().name
    write_lora(output, adapter, target, name=title, dtype=dtype)
    return _done(named, adapter, output, "gguf", target.architecture, output.stat().st_size)


def _config(home: Home, base: str, named: NamedAdapter) -> Path:
    """Return the ``config.json`` of a base that is at hand; nothing is fetched."""
    folder = local_folder(base) if base else None
    if base and folder is None:
        found = BaseStore(home).find(base)
        folder = found.path if found else None
    if folder is not None and (folder / "config.json").is_file():
        return folder / "config.json"
    missing = base[:200] or "the adapter does not name it"
    raise NotFoundError(
        f"the base of {named.name[:200]!r} is not here: {missing}",
        where=str(folder or home.bases),
        hint=f"{pull_command(missing)}; or --base with its folder"
        if base and folder is None
        else "--base with the base's alias, hub id or folder",
    )


def _peft(named: NamedAdapter, output: Path, home: Home, dtype: Numbers | None, force: bool) -> AdapterExport:
    if output.suffix == ".gguf" or dtype is not None:
        raise UsageError(
            f"--dtype {dtype} is for GGUF: a PEFT folder is copied as it is"
            if dtype
            else f"{output} names a GGUF file",
            hint="--format gguf",
        )
    if named.record is None:
        raise UsageError(f"{named.name[:200]} is a PEFT folder already", hint="copy it, or: --format gguf -o FILE.gguf")
    check_folder(output, force)
    adapter, slug = read_adapter(named.folder), named.record.base
    base = next((item for item in BaseStore(home).all() if item.slug == slug), None)
    if base is not None and (base.path / "config.json").is_file():  # an adapter can be exported without its base
        check_writable(adapter, folder_shapes(base.path, base.name), output)
    with files.new_folder(output.absolute()) as folder:
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(named.folder / name, folder / name)
        files.write_text(folder / CARD, _card(named.record, base))
        _manifest(named, named.record).model_copy(update={"files": listed(folder)}).write(folder / ABOUT)
        files.sync_tree(folder)
    return _done(named, adapter, output, "peft", None, files.folder_bytes(output))


def _manifest(named: NamedAdapter, record: AdapterRecord) -> Exported:
    about = record.about
    return Exported(
        schema="icmlora.exported/1",
        merged=False,
        base=BaseReference(model_id=about.model_id, revision=about.revision, weight_hash=record.weight_hash),
        checkpoint=named.folder.name,
        adapter=record.manifest(),
        licences=tuple(_licences(record)),
        versions=versions(),
        command=command_line(),
    )


def _licences(record: AdapterRecord) -> list[str]:
    return sorted({name for name in (record.about.licence, record.about.base_licence) if name})


def _card(record: AdapterRecord, base: Base | None) -> str:
    about = record.about
    texts = {key: text for key, text in (("source", about.source), ("command", about.command)) if text}
    return kept_card(
        base_model=about.model_id or record.base,
        task=record.task,
        step=record.checkpoints[-1].step,
        figures=record.figures,
        imported_from=record.imported.source if record.imported else None,
        facts=texts,
        data=CardData(
            _licences(record),
            unlicensed=0 if about.licence else 1,
            datasets=hub_datasets([texts.get("source")]),
            loader=CardData.loader if base is None else base.loader,
        ),
    )


def _done(
    named: NamedAdapter, adapter: Adapter, output: Path, form: Format, architecture: str | None, size: int
) -> AdapterExport:
    return AdapterExport(
        output=output,
        format=form,
        task=named.record.task if named.record else None,
        key=named.record.key if named.record else None,
        base_model=adapter.base_model,
        architecture=architecture,
        modules=len(adapter.factors),
        rank=adapter.rank,
        bytes=size,
    )
