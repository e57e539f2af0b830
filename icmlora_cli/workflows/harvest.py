"""Harvest: one LoRA a task on the frozen base, resumable between and within tasks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from icmlora_cli.config.recipes import HarvestRecipe
from icmlora_cli.errors import IcmloraError
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.perplexity import aggregate, score_texts
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.scoring import score
from icmlora_cli.lm.trainers import AdapterTrainer, make_trainer
from icmlora_cli.registry import files, provenance
from icmlora_cli.registry.adapters import CONFIG, MANIFEST, STATE, WEIGHTS, AdapterRecord, AdapterStore, Checkpoint
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.tasks import Task
from icmlora_cli.weights.adapter import Adapter, write_adapter
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

VERSION = 1  # of the training procedure; part of every key


@dataclass(frozen=True)
class HarvestResult:
    """What a harvest did.

    Args:
        records: the adapters of all tasks asked for, in order.
        trained: the tasks that this run trained (or finished).
        seconds: wall time.
    """

    records: tuple[AdapterRecord, ...]
    trained: tuple[str, ...]
    seconds: float


def harvest_key(base: Base, task: Task, recipe: HarvestRecipe) -> str:
    """Return the hash that makes a harvest what it is: base weights, task data, recipe."""
    values = recipe.model_dump(mode="json")
    values.pop("save_every")
    values.pop("validate_on")
    if recipe.parametrization == "lora":
        values.pop("parametrization")  # what there was before it had a name has the same key
    return files.sha256_json([VERSION, base.weight_hash, task.data_hash, values])[:12]


def run(
    tasks: Sequence[Task],
    base: Base,
    recipe: HarvestRecipe,
    home: Home,
    *,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> HarvestResult:
    """Train the adapters that are not there yet.

    Args:
        tasks: what to harvest, in order.
        base: the frozen base model.
        recipe: how to train.
        home: the registry.
        device: where to train; the best device by default.
        on_progress: told of each step.

    Raises:
        IcmloraError: if another harvest works on this registry, the disk is full, or training diverges.
    """
    started = time.monotonic()
    store = AdapterStore(home)
    keys = [harvest_key(base, task, recipe) for task in tasks]
    missing = [task for task, key in zip(tasks, keys, strict=True) if store.find(base.slug, task.name, key) is None]
    home.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.root / "harvest.lock")
    try:
        with lock.acquire(timeout=0):
            if missing:
                _train(missing, base, recipe, store, device, len(tasks), on_progress)
    except Timeout as error:
        raise IcmloraError(
            "another harvest is at work on this registry", where=str(home.root), hint="wait for it, or stop it"
        ) from error
    records = [store.find(base.slug, task.name, key) for task, key in zip(tasks, keys, strict=True)]
    finished = tuple(record for record in records if record is not None)
    return HarvestResult(finished, tuple(task.name for task in missing), time.monotonic() - started)


def _train(
    missing: Sequence[Task],
    base: Base,
    recipe: HarvestRecipe,
    store: AdapterStore,
    device: str | None,
    total: int,
    on_progress: OnProgress,
) -> None:
    trainer = make_trainer(load_base(base, device=device), recipe)
    try:
        for index, task in enumerate(missing):
            one = _TaskHarvest(task, trainer, store, on_progress, total - len(missing) + index, total)
            one.run()
    finally:
        trainer.close()


@dataclass
class _TaskHarvest:
    """The harvest of one task."""

    task: Task
    trainer: AdapterTrainer
    store: AdapterStore
    on_progress: OnProgress
    done: int
    total: int

    def run(self) -> None:
        recipe, loaded = self.trainer.recipe, self.trainer.loaded
        key = harvest_key(loaded.base, self.task, recipe)
        folder = self.store.folder(loaded.base.slug, self.task.name, key)
        started = time.monotonic()
        rows = encode_task(loaded.tokenizer, self.task, self.task.examples("train"))
        with files.disk_errors(folder / MANIFEST):
            loss = finetune(
                self.trainer,
                rows,
                state=folder / STATE,
                identity=key,
                on_step=self._report,
                on_checkpoint=lambda step, adapter: self._keep(folder, step, adapter),
            )
        figures = {"loss": loss, "seconds": time.monotonic() - started}
        figures |= self._validate(loaded)
        self.store.record(self._record(folder, key, figures))
        (folder / STATE).unlink(missing_ok=True)
        last = self._note(figures)
        steps = recipe.steps
        self.on_progress(Progress("harvest", self.task.name, steps, steps, last, self.done + 1, self.total))

    def _report(self, step: int, loss: float) -> None:
        steps = self.trainer.recipe.steps
        if step < steps:
            detail = f"loss {loss:.3f}"
            self.on_progress(Progress("harvest", self.task.name, step, steps, detail, self.done, self.total))

    def _note(self, figures: dict[str, float]) -> str:
        told = f"loss {figures['loss']:.3f}"
        if "exact_match" in figures:
            told += f", validation exact match {figures['exact_match']:.2f}"
        if "bits_per_character" in figures:
            told += f", validation bits per character {figures['bits_per_character']:.3f}"
        return told

    def _keep(self, folder: Path, step: int, adapter: Adapter) -> None:
        revision = self.trainer.loaded.base.revision
        write_adapter(folder / f"checkpoint-{step:05d}", adapter, revision=revision)

    def _validate(self, loaded: LoadedBase) -> dict[str, float]:
        examples = self.task.examples("validation")[: self.trainer.recipe.validate_on]
        if not examples:
            return {}
        if self.task.template.kind == "text":
            whole = aggregate(score_texts(loaded, [example.output for example in examples]))
            return {"bits_per_character": whole.bits_per_character, "perplexity": whole.perplexity}
        scores = score(loaded, encode_task(loaded.tokenizer, self.task, examples))
        return {"exact_match": scores.exact_match, "nll": scores.mean_nll}

    def _record(self, folder: Path, key: str, figures: dict[str, float]) -> AdapterRecord:
        loaded, recipe = self.trainer.loaded, self.trainer.recipe
        checkpoints = tuple(
            Checkpoint(
                step=int(path.name.removeprefix("checkpoint-")),
                folder=path.name,
                sha256=files.sha256_file(path / WEIGHTS),
                bytes=files.folder_bytes(path),
                config_sha256=files.sha256_file(path / CONFIG),
            )
            for path in sorted(folder.glob("checkpoint-*"))
        )
        about = {
            "model_id": loaded.base.model_id,
            "revision": loaded.base.revision,
            "base_licence": loaded.base.licence,
            "licence": self.task.licence,
            "source": self.task.source,
            "recipe": recipe.model_dump(mode="json"),
            "versions": provenance.versions(),
            "command": provenance.command_line(),
            "device": str(loaded.device),
            "dtype": str(loaded.dtype),
        }
        return AdapterRecord(
            task=self.task.name,
            key=key,
            base=loaded.base.slug,
            weight_hash=loaded.base.weight_hash,
            data_hash=self.task.data_hash,
            created=provenance.now(),
            checkpoints=checkpoints,
            figures=figures,
            about=about,
            folder=folder,
        )
