"""Harvests on a Ray cluster: each task is a Ray task with its resources, run again when its node dies.

The registry and the base's folder must be on a file system that all nodes share. When a node dies, another one
resumes its harvest from the saved state, once the lease has run out.
"""

import math
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import IcmloraError, UsageError
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.harvest.worker_progress import AggregateProgress
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

RETRIES = 20  # of a Ray task whose node or process died
LOOK = 0.5  # seconds between looks at which Ray tasks are finished, and between reports of one


def run(
    tasks: Sequence[Task],
    base: Base,
    recipe: HarvestRecipe,
    home: Home,
    *,
    address: str | None = None,
    gpus_per_task: float = 0.0,
    cpus_per_task: float = 1.0,
    on_progress: OnProgress = silent,
) -> harvest.HarvestResult:
    """Train the adapters that the registry lacks, each as a Ray task.

    Args:
        tasks: The tasks to harvest.
        base: The frozen base model, which each Ray task loads.
        recipe: How to train.
        home: The registry, on a file system that all nodes share.
        address: The address of the cluster; ``auto`` takes the one that this machine belongs to, and None starts one
            on this machine.
        gpus_per_task: The GPUs that a task takes; with 0.25, four tasks share one.
        cpus_per_task: The CPU cores that a task takes.
        on_progress: Called after each step of each task.

    Raises:
        UsageError: If Ray is not installed, or there is no cluster at the address.
        IcmloraError: If an error stopped a task; it is raised once the others are done.
    """
    started = time.monotonic()
    ray = _ray(address)
    store = AdapterStore(home)
    progress = AggregateProgress(tasks, base, recipe, store, on_progress)
    records = harvest.records_of(tasks, base, recipe, store)
    missing = [task for task in tasks if task.name not in records]
    messages = _queue(ray)
    remote = ray.remote(_train).options(
        num_cpus=cpus_per_task, num_gpus=gpus_per_task, max_retries=RETRIES, name="icmlora harvest"
    )
    pending = [remote.remote(task, base, recipe, home, messages) for task in missing]
    errors: list[IcmloraError] = []
    stop = threading.Event()
    listener = threading.Thread(target=_listen, args=(messages, progress, stop), daemon=True)
    listener.start()
    try:
        while pending:
            done, pending = ray.wait(pending, timeout=LOOK)
            errors += [error for error in map(ray.get, done) if error is not None]
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        stop.set()
        listener.join()
        messages.shutdown(force=True)
    if errors:
        raise errors[0]
    records = harvest.records_of(tasks, base, recipe, store)
    trained = tuple(task.name for task in missing if task.name in records)  # whichever attempt of Ray's finished them
    return harvest.HarvestResult(tuple(records.values()), trained, time.monotonic() - started)


def _train(
    task: Task, base: Base, recipe: HarvestRecipe, home: Home, messages: Any
) -> IcmloraError | None:  # Ray's queue has no types
    """Harvest one task on the node where Ray runs it; an error is returned, so that Ray does not run it again."""
    last = -math.inf

    def tell(progress: Progress) -> None:
        nonlocal last
        if progress.done < progress.total and time.monotonic() - last < LOOK:
            return
        last = time.monotonic()
        with suppress(Exception):  # the harvest goes on even if the command that shows its progress has ended
            messages.actor.put_nowait.remote(progress)  # and does not wait until the report has arrived

    try:
        harvest.run([task], base, recipe, home, on_progress=tell)
    except IcmloraError as error:
        return error
    return None


def _listen(messages: Any, on_progress: OnProgress, stop: threading.Event) -> None:
    from ray.util.queue import Empty

    while not stop.is_set():
        with suppress(Empty):
            on_progress(messages.get(timeout=LOOK))


def _ray(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray", hint='pip install "icmlora[ray]"') from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
        except (ConnectionError, ValueError) as error:
            raise UsageError(
                f"there is no Ray cluster at {address!r}: {error}", hint="ray start --head, or leave --address out"
            ) from error
    return ray


def _queue(ray: Any) -> Any:
    """Return a queue whose actor runs on this node, so that no other node's death ends it."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)})
