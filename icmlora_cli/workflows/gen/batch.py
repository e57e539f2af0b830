"""Gen of many texts: generator and base are loaded once, each text gets a folder of its own; resumable."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, CorruptFileError, GateRefusedError
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.manifests.output import Generated
from icmlora_cli.provenance.versions import ABOUT
from icmlora_cli.registry.bases import Base
from icmlora_cli.workflows.gen.batch_file import BatchItem, read_batch
from icmlora_cli.workflows.gen.generate import check, load_maker
from icmlora_cli.workflows.gen.generator import AdapterGenerator, GenResult
from icmlora_cli.workflows.gen.options import GenInputs, GenRequest
from icmlora_cli.workflows.gen.write import Provenance, identity, is_whole
from icmlora_cli.workflows.output import check_folder, is_free
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

State = Literal["written", "unchanged", "refused"]


@dataclass(frozen=True)
class BatchEntry:
    """What became of one text.

    Args:
        name: of its folder.
        task_text: the text.
        folder: where its adapter is, or would be.
        state: ``written``; ``unchanged``: it was there; ``refused``: by the gate, and nothing was written.
        result: what was written, in this run.
        reason: why it was refused.
    """

    name: str
    task_text: str
    folder: Path
    state: State
    result: GenResult | None = None
    reason: str | None = None


@dataclass(frozen=True)
class BatchResult:
    """A batch.

    Args:
        folder: that holds a folder for each text.
        entries: the texts, in the file's order.
        seconds: wall time.
        notes: what there is to say of how the example files were read.
    """

    folder: Path
    entries: tuple[BatchEntry, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> int:
        """How many texts the gate refused."""
        return sum(entry.state == "refused" for entry in self.entries)


def run(
    batch: Path,
    out: Path,
    request: GenRequest,
    base: Base,
    home: Home,
    *,
    force: bool = False,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> BatchResult:
    """Generate an adapter for each text of a file, each in a folder of its own below ``out``.

    A folder that holds what would be made (same text, generator, base, seed and options) is left, so that a batch that
    was stopped goes on.

    Args:
        batch: The file with the texts, as ``read_batch`` describes it.
        out: The folder in which each text gets its folder; other folders in it are left alone.
        request: The generator, and what is asked of it for every text: seed, examples and options are shared.
        base: The base model that the generator was trained on.
        home: The registry, for cached task vectors and harvested adapters.
        force: Whether folders that hold something else that gen made are replaced.
        device: The torch device on which the base runs; None takes a GPU where there is one.
        on_progress: Called at each step of each text.

    Raises:
        SpecError: if the file has faults.
        AlreadyExistsError: if a folder holds something else, and ``force`` is not set. Nothing is made then.
        IcmloraError: what ``gen.run`` raises, but for the gate; texts before stay made.
    """
    started = time.monotonic()
    items = read_batch(batch)
    if out.exists() and not out.is_dir():
        raise AlreadyExistsError(f"{out} is a file", where=str(out.absolute()), hint="name a folder with -o")
    generator, inputs = check(request, base)
    there = [_is_made(out / item.name, _wanted(item, generator, base, request, inputs), request) for item in items]
    _check_free([out / item.name for item, made in zip(items, there, strict=True) if not made], force)
    place = [0]

    def report(progress: Progress) -> None:
        at = place[0]
        label = f"{items[at].name}: {progress.label}" if at < len(items) else progress.label
        on_progress(replace(progress, label=label, items_done=at, items_total=len(items)))

    adapter_generator: AdapterGenerator | None = None
    entries = []
    for index, (item, made) in enumerate(zip(items, there, strict=True)):
        place[0] = index
        if made:
            entries.append(BatchEntry(item.name, item.text, out / item.name, "unchanged"))
            continue
        adapter_generator = adapter_generator or load_maker(request, generator, inputs, base, home, device, report)
        report(Progress("gen", "make", 0, 1))
        entries.append(_entry(adapter_generator, item, out))
    on_progress(Progress("gen", "all", 1, 1, items_done=len(items), items_total=len(items)))
    return BatchResult(out, tuple(entries), time.monotonic() - started, inputs.notes)


def _entry(adapter_generator: AdapterGenerator, item: BatchItem, out: Path) -> BatchEntry:
    started, folder = time.monotonic(), out / item.name
    try:
        result = adapter_generator.write(folder, item.text, adapter_generator.make(item.text), started)
    except GateRefusedError as error:
        return BatchEntry(item.name, item.text, folder, "refused", reason=error.message)
    return BatchEntry(item.name, item.text, folder, "written", result)


def _wanted(item: BatchItem, generator: Generator, base: Base, request: GenRequest, inputs: GenInputs) -> list[object]:
    provenance = Provenance(generator, request.folder, base, item.text, request.seed, request.merged)
    return identity(provenance.manifest().model_copy(update={"options": request.asked(inputs)}))


def _is_made(folder: Path, wanted: list[object], request: GenRequest) -> bool:
    """Tell whether a folder holds what would be made."""
    try:
        return is_whole(folder, request) and identity(Generated.read(folder / ABOUT)) == wanted
    except (FileNotFoundError, CorruptFileError):
        return False


def _check_free(folders: list[Path], force: bool) -> None:
    if force:
        for folder in folders:
            check_folder(folder, force)
        return
    taken = [folder for folder in folders if not is_free(folder)]
    if taken:
        names = ", ".join(folder.name for folder in taken[:5]) + (", ..." if len(taken) > 5 else "")
        raise AlreadyExistsError(
            f"{len(taken)} of the folders are there, and hold something else than would be made: {names}",
            where=str(taken[0].parent.absolute()),
            hint="--force replaces them, or name another -o",
        )
