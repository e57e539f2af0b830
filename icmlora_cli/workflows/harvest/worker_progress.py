"""Progress of several workers on the same tasks, as one."""

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
    """Passes the progress of a worker on, with the count of finished tasks over all workers.

    Args:
        tasks: what all of them harvest.
        base: on which base.
        recipe: how.
        store: where what is finished lies.
        on_progress: told.
    """

    tasks: Sequence[Task]
    base: Base
    recipe: HarvestRecipe
    store: AdapterStore
    on_progress: OnProgress

    def __post_init__(self) -> None:
        """Note which tasks were finished before."""
        self._done = set(harvest.records_of(self.tasks, self.base, self.recipe, self.store))

    def __call__(self, progress: Progress) -> None:
        """Pass it on, unless it is of a worker that waits for others."""
        if progress.total and progress.done >= progress.total:
            self._done.add(progress.label)
        if progress.total:
            self.on_progress(replace(progress, items_done=len(self._done), items_total=len(self.tasks)))
