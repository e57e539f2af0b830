"""The ``gen --batch`` workflow: one loaded generator and base make a folder for each of many texts; resumable."""

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
from icmlora_cli.workflows.gen.generate import check, load_adapter_generator
from icmlora_cli.workflows.gen.generator import AdapterGenerator, GenResult
from icmlora_cli.workflows.gen.options import GenInputs, GenRequest
from icmlora_cli.workflows.gen.write import Provenance, identity, is_whole
from icmlora_cli.workflows.output import check_folder, is_free
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

State = Literal["written", "unchanged", "refused"]


@dataclass(frozen=True)
class BatchEntry:
    """What became of one text of a batch.

    Args:
        name: The name of its folder.
        task_text: The text.
        folder: The folder that its adapter is in, or would be in.
        state: ``written``, ``unchanged`` if the same was there already, or ``refused`` if the gate refused it, so that
            nothing was written.
        result: The adapter that this run wrote; None unless it was written.
        reason: The gate's message; None unless it was refused.
    """

    name: str
    task_text: str
    folder: Path
    state: State
    result: GenResult | None = None
    reason: str | None = None


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch.

    Args:
        folder: The folder in which each text has its folder.
        entries: The texts, in the file's order.
        seconds: The wall time in seconds.
        notes: Remarks on how the example files were read.
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

    A folder that holds what would be made (same text, generator, base, seed and options) is left alone, so that a
    batch that was stopped goes on where it was.

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
        SpecError: If the file has faults.
        AlreadyExistsError: If a folder holds something else, and ``force`` is not set; nothing is made then.
        IcmloraError: If ``generate.run`` would raise it, except for the gate; what was written before stays.
    """
    started = time.monotonic()
    items = read_batch(batch)
    if out.exists() and not out.is_dir():
        raise AlreadyExistsError(f"{out} is a file", where=str(out.absolute()), hint="name a folder with -o")
    generator, inputs = check(request, base)
    done = [_is_done(out / item.name, _identity(item, generator, base, request, inputs), request) for item in items]
    _check_free([out / item.name for item, is_done in zip(items, done, strict=True) if not is_done], force)
    current = 0

    def report(progress: Progress) -> None:
        label = f"{items[current].name}: {progress.label}"
        on_progress(replace(progress, label=label, items_done=current, items_total=len(items)))

    adapter_generator: AdapterGenerator | None = None
    entries = []
    for current, (item, is_done) in enumerate(zip(items, done, strict=True)):  # noqa: B007 - report reads it
        if is_done:
            entries.append(BatchEntry(item.name, item.text, out / item.name, "unchanged"))
            continue
        adapter_generator = adapter_generator or load_adapter_generator(
            request, generator, inputs, base, home, device, report
        )
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


def _identity(
    item: BatchItem, generator: Generator, base: Base, request: GenRequest, inputs: GenInputs
) -> list[object]:
    """Return all that decides the adapter of a text, to be compared with what a folder records."""
    provenance = Provenance(generator, request.folder, base, item.text, request.seed, request.merged)
    return identity(provenance.manifest().model_copy(update={"options": request.asked(inputs)}))


def _is_done(folder: Path, expected: list[object], request: GenRequest) -> bool:
    """Return whether a folder holds what would be made, whole."""
    try:
        return is_whole(folder, request) and identity(Generated.read(folder / ABOUT)) == expected
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
