"""Merge: one or several adapters, each with a weight, added to their base and written as a whole model."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError, WrongBaseError
from icmlora_cli.lm.adapter_base import adapter_base
from icmlora_cli.lm.meta_model import checkpoint_of
from icmlora_cli.manifests.output import Merged, MergedShare, ModelFiles
from icmlora_cli.provenance.versions import ABOUT, command_line, versions
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.base_files import licence_of
from icmlora_cli.registry.bases import Base, BaseStore, canonical_name
from icmlora_cli.report.cards import CARD, CardData, merge_card
from icmlora_cli.weights.adapter_form import Dtype
from icmlora_cli.weights.foreign.config import CONFIG, read_settings
from icmlora_cli.weights.foreign.open import AdapterBase, open_foreign
from icmlora_cli.weights.foreign.steps import foreign_steps
from icmlora_cli.weights.stored.changes import Steps, combined
from icmlora_cli.workflows.adapters.named import NamedAdapter, find_named
from icmlora_cli.workflows.gen.write import listed
from icmlora_cli.workflows.merge.tokenizer import files_beside
from icmlora_cli.workflows.merge.write import WrittenModel, write_model
from icmlora_cli.workflows.output import check_apart, check_folder
from icmlora_cli.workflows.progress import OnProgress, silent

SCHEMA = "icmlora.merged/1"


@dataclass(frozen=True)
class Share:
    """An adapter to merge.

    Args:
        adapter: which.
        weight: what its delta-W is multiplied by.
    """

    adapter: NamedAdapter
    weight: float


@dataclass(frozen=True)
class MergedAdapter:
    """An adapter that was merged.

    Args:
        name: what it was asked for as.
        weight: what its delta-W was multiplied by.
        folder: where it was.
        task: whose it is in the registry; None for a folder outside of it.
        key: The key of its record; None where it is only a folder.
        sha256: The SHA-256 of its weights file.
        config_sha256: The SHA-256 of its configuration file.
        licence: that it names, or None.
    """

    name: str
    weight: float
    folder: Path
    task: str | None
    key: str | None
    sha256: str
    config_sha256: str
    licence: str | None

    def share(self) -> MergedShare:
        """Return what ``icmlora.json`` says of it: of a folder, its name, and not the path to it."""
        name = self.folder.resolve().name if self.task is None else self.name
        return MergedShare(**{key: value for key, value in vars(self).items() if key != "folder"} | {"name": name})


@dataclass(frozen=True)
class MergeResult:
    """A merged model.

    Args:
        folder: where it is.
        base: hub id of the base; of a folder, its name and the start of its weights' hash.
        adapters: what was merged.
        model: what was written.
        bytes: The size of the folder in bytes.
        seconds: wall time.
    """

    folder: Path
    base: str
    adapters: tuple[MergedAdapter, ...]
    model: WrittenModel
    bytes: int
    seconds: float


def find_shares(wanted: Sequence[tuple[str, float]], home: Home) -> tuple[Share, ...]:
    """Return the adapters of names and weights.

    Args:
        wanted: a task's name, a key or a PEFT folder each, and its weight.
        home: the registry.

    Raises:
        CorruptFileError: if one is not what its manifest says.
        NotFoundError: if there is no such adapter.
        UsageError: if none is named, a name is of several bases, or a weight is not finite.
    """
    if not wanted:
        raise UsageError("no adapter is named", hint="icmlora merge ADAPTER -o out/   (icmlora adapter list)")
    for name, weight in wanted:
        if not math.isfinite(weight):
            raise UsageError(f"the weight of {name} is {weight}", hint=f"a finite number: -a {name}:0.5")
    store = AdapterStore(home)
    return tuple(Share(find_named(store, name), weight) for name, weight in wanted)


def base_name(shares: Sequence[Share], home: Home) -> str:
    """Return the name of the base that the adapters say they are for.

    Raises:
        CorruptFileError: if a configuration is broken.
        UsageError: if they say nothing, or name several.
    """
    store = BaseStore(home)
    known = {base.slug: base.name for base in store.all()}
    said: dict[str, str] = {}
    for share in shares:
        record = share.adapter.record
        name = None if record is None else known.get(record.base)
        name = name or read_settings(share.adapter.folder).base_model
        if name:
            recorded = store.find(name)
            said.setdefault(canonical_name(name) if recorded is None else recorded.name, name)
    if len(said) != 1:
        raise UsageError(
            f"the adapters are for {len(said)} bases: {', '.join(said.values())}"
            if said
            else f"{CONFIG} does not say which base the adapter is for",
            where=str(shares[0].adapter.folder),
            hint="say which with --base",
        )
    return next(iter(said.values()))


def run(
    shares: Sequence[Share],
    out: Path,
    base: Base,
    *,
    dtype: Dtype | None = None,
    any_base_name: bool = False,
    force: bool = False,
    on_progress: OnProgress = silent,
) -> MergeResult:
    """Write the base with the adapters' delta-W added, one file at a time; no model is loaded.

    Args:
        shares: the adapters.
        out: the folder to write.
        base: what they are for.
        dtype: The dtype of the written floats; None keeps the base's.
        any_base_name: take adapters that say they are for another base; their shapes must still fit.
        force: replace ``out`` if icmlora wrote it.
        on_progress: told of each file.

    Raises:
        AlreadyExistsError: if ``out`` exists and ``force`` is not set, or icmlora did not write it.
        CorruptFileError: if base or adapter are damaged, or a merged number is not finite.
        OutOfSpaceError: if the disk is full; ``out`` is then what it was before.
        UnsupportedAdapterError: if an adapter is more than can be merged.
        UsageError: if ``out`` is, or holds, the base or an adapter.
        WrongBaseError: if an adapter is for another base.
    """
    started = time.monotonic()
    check_apart(out, [base.path, *(share.adapter.folder for share in shares)])
    check_folder(out, force)
    checkpoint = checkpoint_of(base)
    for_base = adapter_base(base)
    read = [_read(share, for_base, any_base_name) for share in shares]
    adapters = tuple(item for item, _ in read)
    changes = combined([(steps, item.weight) for item, steps in read])
    embeddings = [item.in_features for item in checkpoint.shapes.modules.values() if item.kind == "embedding"]
    # an adapter of the registry was trained with the base's own tokenizer
    foreign = [share.adapter.folder for share in shares if share.adapter.record is None]
    beside = files_beside(checkpoint.folder, foreign, max(embeddings, default=0))
    with files.new_folder(out.absolute()) as folder:
        model = write_model(folder, checkpoint, changes, beside=beside, dtype=dtype, on_progress=on_progress)
        licences = sorted({name for name in (base.licence, *(item.licence for item in adapters)) if name})
        named = [(item.task or item.folder.resolve().name, item.weight) for item in adapters]  # no path of this machine
        unlicensed = sum(item.licence is None for item in adapters)
        card = merge_card(base_model=base.model_id, adapters=named, data=CardData(licences, unlicensed=unlicensed))
        files.write_text(folder / CARD, card)
        held = _manifest(base, adapters, model, licences)
        held.model_copy(update={"files": listed(folder, model.sha256)}).write(folder / ABOUT)
    return MergeResult(out, base.model_id, adapters, model, files.folder_bytes(out), time.monotonic() - started)


def _read(share: Share, base: AdapterBase, any_base_name: bool) -> tuple[MergedAdapter, Steps]:
    found, record = share.adapter, share.adapter.record
    if not any_base_name and record is not None and record.weight_hash != base.weight_hash:
        raise WrongBaseError(
            f"the adapter of task {record.task} was made for other weights than those of {base.known_as[0]}",
            where=str(found.folder),
            hint=f"--base {record.about.model_id}; or, to merge it all the same, --any-base-name",
        )
    foreign = open_foreign(found.folder, base, any_base_name=any_base_name or record is not None)
    licence = licence_of(found.folder) if record is None else record.about.licence
    item = MergedAdapter(
        name=found.name,
        weight=share.weight,
        folder=found.folder,
        task=None if record is None else record.task,
        key=None if record is None else record.key,
        sha256=foreign.sha256,
        config_sha256=files.sha256_file(found.folder / CONFIG),
        licence=str(licence) if licence else None,
    )
    return item, foreign_steps(foreign, base.shapes)


def _manifest(base: Base, adapters: Sequence[MergedAdapter], model: WrittenModel, licences: Sequence[str]) -> Merged:
    return Merged(
        schema="icmlora.merged/1",
        merged=True,
        base=base.reference(),
        adapters=tuple(item.share() for item in adapters),
        model=ModelFiles(
            files=model.files,
            tensors=model.tensors,
            changed=model.changed,
            dtype=model.dtype,
            untied=model.untied,
        ),
        licences=tuple(licences),
        versions=versions(),
        command=command_line(),
    )
