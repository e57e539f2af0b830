"""The harvest of one task: its rows, its training, what is kept of it and what is recorded."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.leases import Lease
from icmlora_cli.lm.finetune import train_through
from icmlora_cli.lm.lengths import CutRows, check_fit, cut_rows
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import aggregate, score_texts
from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.side_by_side import SideBySide
from icmlora_cli.lm.task_training import Listeners, TaskTraining
from icmlora_cli.lm.trainers import AdapterTrainer, FrameTrainer
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
from icmlora_cli.registry.tasks import Task
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter, write_adapter
from icmlora_cli.weights.sensitivity import write_sensitivity
from icmlora_cli.workflows.harvest.keys import harvest_key
from icmlora_cli.workflows.progress import OnProgress, Progress


class LostLeaseError(Exception):
    """Raised when another worker has taken over the task that this one trains."""


@dataclass
class InSlot:
    """One of the adapters that share the passes, as the harvest of its task sees it.

    Args:
        side: The base with all of them.
        slot: The index of this one.
    """

    side: SideBySide
    slot: int

    @property
    def loaded(self) -> LoadedBase:
        """The frozen base."""
        return self.side.loaded

    @property
    def recipe(self) -> HarvestRecipe:
        """How to train."""
        return self.side.recipe

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""
        return self.side.slots[self.slot].parameters

    def reset(self) -> None:
        """Set the adapter to its start."""
        self.side.slots[self.slot].reset()

    def adapter(self) -> Adapter:
        """Return a copy of the adapter as it is now, fp32 on the CPU."""
        return self.side.slots[self.slot].adapter()

    def mean_squares(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor] | None:
        """Return the mean squared gradient of each module's core, fp32 [R, R]; None where there are no cores."""
        return self.side.slots[self.slot].mean_squares(optimizer)

    def alone(self) -> AbstractContextManager[None]:
        """Return a context in which all rows of a pass have this adapter."""
        return self.side.applied([self.slot], 1)


@dataclass
class TaskHarvest:
    """The harvest of one task by the worker that holds its lease.

    Args:
        task: The task.
        trainer: The base with the task's adapter.
        store: Where the adapter is recorded.
        on_progress: Called after each step.
        done: How many tasks are done, for progress.
        total: How many tasks there are.
        lease: The lease, which must not be lost before something is written.
    """

    task: Task
    trainer: AdapterTrainer | InSlot
    store: AdapterStore
    on_progress: OnProgress
    done: int
    total: int
    lease: Lease

    def __post_init__(self) -> None:
        """Find the folder of the adapter, and start to measure."""
        self.meter = CostMeter()
        loaded, recipe = self.trainer.loaded, self.trainer.recipe
        self.key = harvest_key(loaded.base, self.task, recipe)
        self.folder = self.store.folder(loaded.base.slug, self.task.name, self.key)

    def run(self) -> None:
        """Train the adapter and record it.

        Raises:
            LostLeaseError: If the lease is lost.
            TrainingDivergedError: If a loss is not finite.
            UsageError: If an example is longer than what the base reads.
        """
        assert not isinstance(self.trainer, InSlot)
        training = self.begin()
        with files.disk_errors(self.folder / MANIFEST):
            train_through(self.trainer, training)
        self.finish(training)

    def begin(self) -> TaskTraining:
        """Return the training, from its saved state where there is one."""
        self._train = self._rows(self.task.examples("train"))
        self._validation = self._rows(self._validation_examples)  # before anything is trained: one may be too long
        self._tell_cut(self._train)
        listeners = Listeners(
            state=self.folder / STATE,
            identity=self.key,
            on_step=self._report,
            on_checkpoint=self._keep,
            on_end=self._keep_sensitivity,
            meter=self.meter,
        )
        return TaskTraining(self.trainer, self._train.rows, listeners)

    def advance(self, training: TaskTraining, loss: torch.Tensor) -> None:
        """Take a step whose gradients are there."""
        with files.disk_errors(self.folder / MANIFEST):
            training.advance(loss)

    def finish(self, training: TaskTraining) -> None:
        """Score and record the adapter that a training has ended with."""
        with files.disk_errors(self.folder / MANIFEST):
            loss = training.end()
        loaded = self.trainer.loaded
        figures = {"loss": loss} | self.meter.figures() | _cut_figures(self._train, self._validation)
        with self.trainer.alone() if isinstance(self.trainer, InSlot) else nullcontext():
            figures |= self._validate(loaded, self._validation.rows)
        self._check_lease()
        self.store.record(self._record(self.folder, self.key, figures))
        (self.folder / STATE).unlink(missing_ok=True)
        last = self._note(figures)
        steps = self.trainer.recipe.steps
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
        self.meter.sample()
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

    def _keep(self, step: int, adapter: Adapter) -> None:
        loaded = self.trainer.loaded
        write_adapter(self.folder / f"checkpoint-{step:05d}", adapter, loaded.shapes, revision=loaded.base.revision)

    def _keep_sensitivity(self, optimizer: torch.optim.Optimizer) -> None:
        """Write what the optimizer knows of the gradients, where these are of cores in a frame."""
        if isinstance(self.trainer, FrameTrainer | InSlot):
            squares = self.trainer.mean_squares(optimizer)
            if squares is not None:
                write_sensitivity(self.folder / SENSITIVITY, squares)

    @property
    def _validation_examples(self) -> tuple[Example, ...]:
        return self.task.examples("validation")[: self.trainer.recipe.validate_on]

    def _rows(self, examples: Sequence[Example]) -> CutRows:
        loaded, length = self.trainer.loaded, self.trainer.recipe.max_length
        rows = encode_task(loaded.family, self.task, examples, max_length=length)
        cut = cut_rows(rows, length, keep_first=loaded.tokenizer.bos_token_id)
        check_fit(loaded, cut.rows, self.task, examples)
        return cut

    def _tell_cut(self, rows: CutRows) -> None:
        if rows.cut:
            recipe = self.trainer.recipe
            text = f"{rows.cut:,} of {len(rows.rows):,} examples cut to {recipe.max_length:,} tokens"
            self.on_progress(Progress("harvest", self.task.name, 0, recipe.steps, text, self.done, self.total))

    def _validate(self, loaded: LoadedBase, rows: Sequence[Encoded]) -> dict[str, float]:
        examples = self._validation_examples
        if not examples:
            return {}
        if self.task.template.kind == "text":
            whole = aggregate(score_texts(loaded, [example.output for example in examples]))
            return {"bits_per_character": whole.bits_per_character, "perplexity": whole.perplexity}
        scores = score_rows(loaded, rows)
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


def _cut_figures(train: CutRows, validation: CutRows) -> dict[str, float]:
    """Return what was cut as a manifest's figures hold it; nothing where nothing was."""
    if not train.cut + validation.cut:
        return {}
    return {
        "cut_examples": float(train.cut + validation.cut),
        "cut_tokens": float(train.tokens + validation.tokens),
        "longest": float(max(train.longest, validation.longest)),
    }
