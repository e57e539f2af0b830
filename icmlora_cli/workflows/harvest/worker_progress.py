"""Combines the progress of several workers on the same tasks into one report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import OnProgress, Progress


@dataclass
class AggregateProgress:
    """Passes on each worker's progress with the number of tasks that all workers together have finished.

    Args:
        tasks: The tasks that the workers share.
        base: The base model.
        recipe: How the workers train.
        store: Where finished adapters are.
        on_progress: Called with the combined progress.
    """

    tasks: Sequence[Task]
    base: Base
    recipe: HarvestRecipe
    store: AdapterStore
    on_progress: OnProgress

    def __post_init__(self) -> None:
        """Note which tasks were finished before the workers began."""
        self._done = set(harvest.records_of(self.tasks, self.base, self.recipe, self.store))

    def __call__(self, progress: Progress) -> None:
        """Pass on a worker's progress, except that it waits for other workers; a remark finishes no task."""
        if progress.stage != "harvest":
            self.on_progress(progress)
            return
        if progress.total and progress.done >= progress.total:
            self._done.add(progress.label)
        if progress.total:
            self.on_progress(replace(progress, items_done=len(self._done), items_total=len(self.tasks)))
