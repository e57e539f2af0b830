"""The ``harvest`` workflow: one LoRA for each task on the frozen base, resumable between and within tasks.

Any number of harvests may work on one registry, on one machine or on several that share its file system: a task is
trained by the worker that holds its lease (``disk.leases``). When other workers train all tasks that remain, a harvest
waits, in case one of them dies and its task has to be taken over.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.disk.leases import Lease
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.lengths import task_rows
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.perplexity import aggregate, score_texts
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.trainers import AdapterTrainer, FrameTrainer, make_trainer
from icmlora_cli.manifests.adapter import AdapterAbout
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.provenance.versions import command_line, now, versions
from icmlora_cli.registry.adapters import (
    MANIFEST,
    SENSITIVITY,
    STATE,
    AdapterRecord,
    AdapterStore,
    checkpoint_of,
    sensitivity_of,
)
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter, write_adapter
from icmlora_cli.weights.sensitivity import write_sensitivity
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_memory, silent

VERSION = 1  # of the training procedure; part of every key
POLL = 0.5  # seconds between looks at the tasks that other workers train


@dataclass(frozen=True)
class HarvestResult:
    """The adapters of a harvest.

    Args:
        records: The adapters of all tasks that were asked for, in order.
        trained: The names of the tasks that this run trained, or finished training.
        seconds: The wall time in seconds.
    """

    records: tuple[AdapterRecord, ...]
    trained: tuple[str, ...]
    seconds: float


def harvest_key(base: Base, task: Task, recipe: HarvestRecipe) -> str:
    """Return the hash of all that decides a task's harvest: base weights, task data and recipe.

    What was harvested before the procedure was mended keeps its key where the mend makes no difference to it.
    """
    values = recipe.model_dump(mode="json")
    values.pop("save_every")
    values.pop("validate_on")
    if recipe.parametrization == "lora":
        values.pop("parametrization")  # so that adapters from before this setting existed keep their keys
    return files.sha256_json([VERSION, base.weight_hash, task.data_hash, values, *_mended(base, task, recipe)])[:12]


def _mended(base: Base, task: Task, recipe: HarvestRecipe) -> list[str]:
    """Return the mends of the procedure without which this harvest would be worse.

    Until the first one, the longest of fewer than eight batches of examples were never trained on unless all batches
    were whole. Until the second, only byte-level tokenizers gave an answer the tokens that it has after its prompt.
    """
    count, windows = task.counts["train"], task.template.kind == "text"
    dropped = recipe.batch_size < count < 8 * recipe.batch_size and count % recipe.batch_size
    mends = ["every example"] if dropped or (windows and count < 8 * recipe.batch_size) else []
    return [*mends, *base.encoding]


def records_of(
    tasks: Sequence[Task], base: Base, recipe: HarvestRecipe, store: AdapterStore
) -> dict[str, AdapterRecord]:
    """Return the finished adapters of this very harvest by the task's name, in the tasks' order.

    Raises:
        CorruptFileError: If a manifest is broken.
    """
    records = {task.name: store.find(base.slug, task.name, harvest_key(base, task, recipe)) for task in tasks}
    return {name: record for name, record in records.items() if record is not None}


def run(
    tasks: Sequence[Task],
    base: Base,
    recipe: HarvestRecipe,
    home: Home,
    *,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> HarvestResult:
    """Train the adapters that the registry lacks.

    Args:
        tasks: The tasks to harvest, in order.
        base: The frozen base model.
        recipe: How to train.
        home: The registry.
        device: The torch device to train on; None takes a GPU where there is one.
        on_progress: Called after each step.

    Raises:
        OutOfSpaceError: If the disk is full.
        TrainingDivergedError: If a loss is not finite.
        UsageError: If an example is longer than what the base reads.
    """
    started = time.monotonic()
    store = AdapterStore(home)
    done = records_of(tasks, base, recipe, store)
    missing = [task for task in tasks if task.name not in done]
    trained: tuple[str, ...] = ()
    if missing:
        with _Worker(base, recipe, store, device, len(tasks), on_progress) as worker:
            trained = worker.run(missing)
        done = records_of(tasks, base, recipe, store)
    return HarvestResult(tuple(done.values()), trained, time.monotonic() - started)


class LostLeaseError(Exception):
    """Raised when another worker has taken over the task that this one trains."""


@dataclass
class _Worker:
    """One of the processes that share a harvest; it loads the base when it gets its first task."""

    base: Base
    recipe: HarvestRecipe
    store: AdapterStore
    device: str | None
    total: int
    on_progress: OnProgress

    def __enter__(self) -> "_Worker":
        self._trainer: AdapterTrainer | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._trainer is not None:
            self._trainer.close()

    def run(self, missing: Sequence[Task]) -> tuple[str, ...]:
        """Train what no other worker trains until all tasks have adapters; return the names of those trained here."""
        waiting = {task.name: (task, Lease(self._folder(task))) for task in missing}
        trained: list[str] = []
        while waiting:
            before = len(waiting)
            for task, lease in list(waiting.values()):
                if self._train(task, lease, self.total - len(waiting)):
                    trained.append(task.name)
                if self._finished(task):
                    del waiting[task.name]
            if len(waiting) == before:
                self._wait(waiting)
        return tuple(trained)

    def _train(self, task: Task, lease: Lease, done: int) -> bool:
        """Train the task unless another worker holds its lease; return whether this worker finished it."""
        if self._finished(task):
            return False
        with lease.tried() as acquired:
            if not acquired or self._finished(task):  # another worker may have finished it a moment ago
                return False
            try:
                _TaskHarvest(task, self._ready(), self.store, self.on_progress, done, self.total, lease).run()
            except LostLeaseError:
                return False
            return True

    def _ready(self) -> AdapterTrainer:
        if self._trainer is None:
            self._trainer = make_trainer(
                load_base(self.base, device=self.device, on_note=notes_of_memory(self.on_progress)), self.recipe
            )
        return self._trainer

    def _folder(self, task: Task) -> Path:
        return self.store.folder(self.base.slug, task.name, harvest_key(self.base, task, self.recipe))

    def _finished(self, task: Task) -> bool:
        return bool(records_of([task], self.base, self.recipe, self.store))

    def _wait(self, waiting: Mapping[str, object]) -> None:
        done = self.total - len(waiting)
        detail = f"{len(waiting)} at work elsewhere"
        self.on_progress(Progress("harvest", "waiting", 0, 0, detail, done, self.total))
        time.sleep(POLL)


@dataclass
class _TaskHarvest:
    """The harvest of one task by the worker that holds its lease."""

    task: Task
    trainer: AdapterTrainer
    store: AdapterStore
    on_progress: OnProgress
    done: int
    total: int
    lease: Lease

    def __post_init__(self) -> None:
        self._meter = CostMeter()

    def run(self) -> None:
        recipe, loaded = self.trainer.recipe, self.trainer.loaded
        key = harvest_key(loaded.base, self.task, recipe)
        folder = self.store.folder(loaded.base.slug, self.task.name, key)
        rows = task_rows(loaded, self.task, self.task.examples("train"))
        self._validation_rows()  # before anything is trained, in case that one of them is too long
        with files.disk_errors(folder / MANIFEST):
            loss = finetune(
                self.trainer,
                rows,
                state=folder / STATE,
                identity=key,
                on_step=self._report,
                on_checkpoint=lambda step, adapter: self._keep(folder, step, adapter),
                on_end=lambda optimizer: self._keep_sensitivity(folder, optimizer),
                meter=self._meter,
            )
        figures = {"loss": loss} | self._meter.figures()
        figures |= self._validate(loaded)
        self._check_lease()
        self.store.record(self._record(folder, key, figures))
        (folder / STATE).unlink(missing_ok=True)
        last = self._note(figures)
        steps = recipe.steps
        self.on_progress(Progress("harvest", self.task.name, steps, steps, last, self.done + 1, self.total))

    def _check_lease(self) -> None:
        """Stop before anything is written, if another worker has taken over the task.

        Raises:
            LostLeaseError: If the lease is lost.
        """
        if self.lease.lost:
            raise LostLeaseError(self.task.name)

    def _report(self, step: int, loss: float) -> None:
        self._check_lease()
        self._meter.sample()
        steps = self.trainer.recipe.steps
        if step < steps:
            detail = f"loss {loss:.3f}"
            self.on_progress(Progress("harvest", self.task.name, step, steps, detail, self.done, self.total))

    def _note(self, figures: dict[str, float]) -> str:
        note = f"loss {figures['loss']:.3f}"
        if "exact_match" in figures:
            note += f", validation exact match {figures['exact_match']:.2f}"
        if "bits_per_character" in figures:
            note += f", validation bits per character {figures['bits_per_character']:.3f}"
        return note

    def _keep(self, folder: Path, step: int, adapter: Adapter) -> None:
        loaded = self.trainer.loaded
        write_adapter(folder / f"checkpoint-{step:05d}", adapter, loaded.shapes, revision=loaded.base.revision)

    def _keep_sensitivity(self, folder: Path, optimizer: torch.optim.Optimizer) -> None:
        """Write what the optimizer knows of the gradients, where these are of cores in a frame."""
        if isinstance(self.trainer, FrameTrainer):
            write_sensitivity(folder / SENSITIVITY, self.trainer.mean_squares(optimizer))

    @property
    def _validation_examples(self) -> tuple[Example, ...]:
        return self.task.examples("validation")[: self.trainer.recipe.validate_on]

    def _validation_rows(self) -> list[Encoded]:
        return task_rows(self.trainer.loaded, self.task, self._validation_examples)

    def _validate(self, loaded: LoadedBase) -> dict[str, float]:
        examples = self._validation_examples
        if not examples:
            return {}
        if self.task.template.kind == "text":
            whole = aggregate(score_texts(loaded, [example.output for example in examples]))
            return {"bits_per_character": whole.bits_per_character, "perplexity": whole.perplexity}
        scores = score_rows(loaded, self._validation_rows())
        return {"exact_match": scores.exact_match, "nll": scores.mean_nll}

    def _record(self, folder: Path, key: str, figures: dict[str, float]) -> AdapterRecord:
        loaded, recipe = self.trainer.loaded, self.trainer.recipe
        checkpoints = tuple(checkpoint_of(path) for path in sorted(folder.glob("checkpoint-*")))
        about = AdapterAbout(
            model_id=loaded.base.model_id,
            revision=loaded.base.revision,
            base_licence=loaded.base.licence,
            licence=self.task.licence,
            source=self.task.source,
            recipe=recipe.model_dump(mode="json"),
            versions=versions(),
            command=command_line(),
            device=str(loaded.device),
            dtype=str(loaded.dtype),
        )
        return AdapterRecord(
            task=self.task.name,
            key=key,
            base=loaded.base.slug,
            weight_hash=loaded.base.weight_hash,
            data_hash=self.task.data_hash,
            created=now(),
            checkpoints=checkpoints,
            figures={name: value for name, value in figures.items() if math.isfinite(value)},  # not a perplexity of inf
            about=about,
            folder=folder,
            sensitivity=sensitivity_of(folder),
        )
