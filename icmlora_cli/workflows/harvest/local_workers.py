"""Runs several harvests side by side on one machine; leases on the tasks decide which of them trains what."""

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import IcmloraError
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.harvest.worker_progress import AggregateProgress
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

LOOK = 0.2  # seconds between looks at whether the workers are alive
GRACE = 30.0  # seconds that a worker may take to end after it was asked to


@dataclass(frozen=True)
class _Ended:
    """The last message of a worker.

    Args:
        trained: The names of the tasks that it trained.
        error: The error that stopped it; None where it finished.
    """

    trained: tuple[str, ...]
    error: IcmloraError | None


@dataclass(frozen=True)
class _Work:
    """The arguments of a worker process; each loads the base by itself."""

    tasks: tuple[Task, ...]
    base: Base
    recipe: HarvestRecipe
    home: Home
    device: str | None
    threads: int
    tasks_per_batch: int | None


def _end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _worker(work: _Work, messages: "multiprocessing.Queue[Progress | _Ended]") -> None:
    """Harvest in a process of its own, and send progress and the outcome through the queue."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(work.threads)
    try:
        done = harvest.run(
            work.tasks,
            work.base,
            work.recipe,
            work.home,
            device=work.device,
            tasks_per_batch=work.tasks_per_batch,
            on_progress=messages.put,
        )
    except IcmloraError as error:
        messages.put(_Ended((), error))
    except KeyboardInterrupt:
        messages.cancel_join_thread()  # the process that would read the queue is ending too
    else:
        messages.put(_Ended(done.trained, None))


def run(
    tasks: Sequence[Task],
    base: Base,
    recipe: HarvestRecipe,
    home: Home,
    *,
    workers: int,
    device: str | None = None,
    tasks_per_batch: int | None = 1,
    on_progress: OnProgress = silent,
) -> harvest.HarvestResult:
    """Train the adapters that the registry lacks, with several processes.

    CUDA devices are given to the processes in turn; on the CPU each process gets an equal share of the cores.

    Args:
        tasks: The tasks to harvest, in order.
        base: The frozen base model, which each process loads.
        recipe: How to train.
        home: The registry.
        workers: The number of processes.
        device: The torch device to train on; None takes a GPU where there is one.
        tasks_per_batch: How many tasks of a process share a pass through the base; None takes as many as its device's
            free memory holds, and 1 on a CPU.
        on_progress: Called after each step of each process.

    Raises:
        IcmloraError: If an error stopped a worker; it is raised once the others have done all that they could. What a
            worker that died has left is trained in this process.
    """
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.Queue[Progress | _Ended] = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // workers)
    processes = [
        context.Process(
            target=_worker,
            args=(_Work(tuple(tasks), base, recipe, home, _dealt(device, index), threads, tasks_per_batch), messages),
            name=f"harvest-{index}",
        )
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        ended = _listen(messages, processes, AggregateProgress(tasks, base, recipe, AdapterStore(home), on_progress))
    finally:
        _end(processes)
    errors = [item.error for item in ended if item.error is not None]
    if errors:
        raise errors[0]
    # trains what a worker that died has left
    result = harvest.run(
        tasks, base, recipe, home, device=device, tasks_per_batch=tasks_per_batch, on_progress=on_progress
    )
    trained = (*(name for item in ended for name in item.trained), *result.trained)
    return replace(result, trained=trained, seconds=time.monotonic() - started)


def _dealt(device: str | None, index: int) -> str | None:
    import torch

    several = device in (None, "cuda") and torch.cuda.is_available() and torch.cuda.device_count() > 1
    return f"cuda:{index % torch.cuda.device_count()}" if several else device


def _listen(
    messages: "multiprocessing.Queue[Progress | _Ended]",
    processes: Sequence[multiprocessing.process.BaseProcess],
    on_progress: OnProgress,
) -> list[_Ended]:
    """Pass progress on until every worker has ended, and return their last messages."""
    ended: list[_Ended] = []
    alive = True
    while alive or not messages.empty():
        alive = any(process.is_alive() for process in processes)
        with suppress(queue.Empty):
            item = messages.get(timeout=LOOK)
            if isinstance(item, _Ended):
                ended.append(item)
            else:
                on_progress(item)
    return ended


def _end(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()
