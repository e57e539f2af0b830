"""The ``harvest`` workflow: one LoRA for each task on the frozen base, resumable between and within tasks.

Any number of harvests may work on one registry, on one machine or on several that share its file system: a task is
trained by the worker that holds its lease (``disk.leases``). When other workers train all tasks that remain, a harvest
waits, in case one of them dies and its task has to be taken over.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.disk.leases import Lease
from icmlora_cli.lm.checkpointing import checkpointed
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.load_options import LoadOptions
from icmlora_cli.lm.side_by_side import SharedPasses, SideBySide, make_slots
from icmlora_cli.lm.trainers import AdapterTrainer, make_trainer
from icmlora_cli.provenance.energy import CostMeter, ShareMeter
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.harvest.keys import harvest_key
from icmlora_cli.workflows.harvest.task_harvest import InSlot, LostLeaseError, TaskHarvest
from icmlora_cli.workflows.harvest.together import Running, fitting_tasks
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_memory, silent

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
    tasks_per_batch: int | None = 1,
    on_progress: OnProgress = silent,
) -> HarvestResult:
    """Train the adapters that the registry lacks.

    Args:
        tasks: The tasks to harvest, in order.
        base: The frozen base model.
        recipe: How to train.
        home: The registry.
        device: The torch device to train on; None takes a GPU where there is one.
        tasks_per_batch: How many tasks share a pass through the base, each with its own adapter; None takes as many as
            the device's free memory holds, and 1 on a CPU.
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
            trained = worker.run(missing, tasks_per_batch)
        done = records_of(tasks, base, recipe, store)
    return HarvestResult(tuple(done.values()), trained, time.monotonic() - started)


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
        self._loaded: LoadedBase | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._trainer is not None:
            self._trainer.close()

    def run(self, missing: Sequence[Task], together: int | None) -> tuple[str, ...]:
        """Train what no other worker trains until all tasks have adapters; return the names of those trained here.

        Args:
            missing: The tasks that lack an adapter.
            together: How many tasks share a pass; None takes as many as the free memory holds.
        """
        waiting = {task.name: (task, Lease(self._folder(task))) for task in missing}
        if together != 1 and len(missing) > 1:
            loaded = self._load()
            count = min(len(missing), together or fitting_tasks(loaded, self.recipe, missing))
            if count > 1:
                return self._run_together(waiting, make_slots(loaded, self.recipe, count))
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

    def _run_together(self, waiting: dict[str, tuple[Task, Lease]], side: SideBySide) -> tuple[str, ...]:
        """Do what ``run`` does with several tasks in each pass; a task that is done makes room for another."""
        trained: list[str] = []
        running: dict[int, Running] = {}
        passes, look = SharedPasses(side), 0.0
        with ExitStack() as stack:
            stack.callback(side.close)
            stack.callback(_leave_all, running)
            stack.enter_context(checkpointed(side.loaded.model, on=self.recipe.gradient_checkpointing))
            while waiting:
                if len(running) < len(side.slots) and time.monotonic() >= look:
                    self._fill(waiting, running, side)
                    look = time.monotonic() + POLL  # what other workers train is not looked at before each step
                if running:
                    done = self._step_together(running, passes, self.total - len(waiting))
                    trained += done
                    for name in done:
                        del waiting[name]
                        look = 0.0
                elif waiting:
                    self._wait(waiting)
        return tuple(trained)

    def _fill(self, waiting: dict[str, tuple[Task, Lease]], running: dict[int, Running], side: SideBySide) -> None:
        """Begin as many tasks as there is room for, and forget those that other workers have finished."""
        busy = {item.task.name for item in running.values()}
        for name, (task, lease) in list(waiting.items()):
            if len(running) == len(side.slots):
                return
            if name in busy:
                continue
            if self._finished(task):
                del waiting[name]
                continue
            free = next(slot for slot in range(len(side.slots)) if slot not in running)
            if (item := self._begun(task, lease, side, free)) is not None:
                running[free] = item

    def _begun(self, task: Task, lease: Lease, side: SideBySide, slot: int) -> Running | None:
        """Return the task's training in a slot; None where another worker holds its lease, or has finished it."""
        stack = ExitStack()
        try:
            if not stack.enter_context(lease.tried()) or self._finished(task):
                stack.close()
                return None
            harvest = TaskHarvest(task, InSlot(side, slot), self.store, self.on_progress, 0, self.total, lease)
            harvest.meter = ShareMeter()
            return Running(task, harvest, harvest.begin(), stack)
        except BaseException:
            stack.close()
            raise

    def _step_together(self, running: dict[int, Running], passes: SharedPasses, done: int) -> list[str]:
        """Take a step of all trainings, end those that are done, and return the names of these."""
        meter = CostMeter()
        going = {slot: item.training.batch() for slot, item in running.items() if not item.training.finished}
        losses = passes.gradients(going) if going else {}
        cost = meter.figures()
        trained: list[str] = []
        for slot, item in list(running.items()):
            item.harvest.done = done + len(trained)
            try:
                if slot in losses:
                    item.share(cost, 1 / len(losses))
                    item.harvest.advance(item.training, losses[slot])
                if not item.training.finished:
                    continue
                item.harvest.finish(item.training)
                trained.append(item.task.name)
            except LostLeaseError:
                pass
            del running[slot]
            item.leave()
        return trained

    def _train(self, task: Task, lease: Lease, done: int) -> bool:
        """Train the task unless another worker holds its lease; return whether this worker finished it."""
        if self._finished(task):
            return False
        with lease.tried() as acquired:
            if not acquired or self._finished(task):  # another worker may have finished it a moment ago
                return False
            try:
                TaskHarvest(task, self._ready(), self.store, self.on_progress, done, self.total, lease).run()
            except LostLeaseError:
                return False
            return True

    def _ready(self) -> AdapterTrainer:
        if self._trainer is None:
            self._trainer = make_trainer(self._load(), self.recipe)
        return self._trainer

    def _load(self) -> LoadedBase:
        if self._loaded is None:
            self._loaded = load_base(
                self.base,
                device=self.device,
                options=LoadOptions.of(self.recipe),
                on_note=notes_of_memory(self.on_progress),
            )
        return self._loaded

    def _folder(self, task: Task) -> Path:
        return self.store.folder(self.base.slug, task.name, harvest_key(self.base, task, self.recipe))

    def _finished(self, task: Task) -> bool:
        return bool(records_of([task], self.base, self.recipe, self.store))

    def _wait(self, waiting: Mapping[str, object]) -> None:
        done = self.total - len(waiting)
        detail = f"{len(waiting)} at work elsewhere"
        self.on_progress(Progress("harvest", "waiting", 0, 0, detail, done, self.total))
        time.sleep(POLL)


def _leave_all(running: dict[int, Running]) -> None:
    """Release the leases of the tasks that are under way."""
    for item in running.values():
        item.leave()
