"""Harvest on a Ray cluster of two nodes on this machine, one of which dies at work."""

import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import Progress

ray = pytest.importorskip("ray", reason="the extra icmlora[ray] is not installed")
psutil = pytest.importorskip("psutil", reason="comes with accelerate")
NodeAffinitySchedulingStrategy = pytest.importorskip("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
RECIPE = HarvestRecipe(steps=600, batch_size=4, learning_rate=1e-2, keep=1, rank=2, save_every=10)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Two nodes of a core each, whose workers are up; this process is on the first."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # else they get no time beside other work
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": ":".join(sys.path)}})
    warm, at = ray.remote(_imported), NodeAffinitySchedulingStrategy
    nodes = [at(node["NodeID"], soft=False) for node in ray.nodes()]
    ray.get([warm.options(num_cpus=1, scheduling_strategy=node).remote() for node in nodes])
    yield made
    ray.shutdown()
    made.shutdown()


def _imported() -> str:
    """Import what a harvest needs, which takes a busy machine longer than a harvest."""
    from icmlora_cli.workflows.harvest import ray_workers

    return ray_workers.__name__


def is_at_work(node: object) -> bool:
    """Return whether a node's worker is at a harvest; Ray writes what a worker does into its command line."""
    raylet = node.all_processes["raylet"][0].process.pid  # type: ignore[attr-defined]
    try:
        return any("icmlora harvest" in " ".join(child.cmdline()) for child in psutil.Process(raylet).children())
    except psutil.NoSuchProcess:
        return False


def test_a_node_dies_at_work_and_all_is_done(
    cluster: object, llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    from icmlora_cli.workflows.harvest import ray_workers

    said: list[Progress] = []
    killed: list[float] = []

    finished = threading.Event()
    second = cluster.second  # type: ignore[attr-defined]

    def end_the_second() -> None:
        while not (is_at_work(second) and any(home.adapters.rglob("state.safetensors"))):
            if finished.wait(0.01):
                return
        cluster.remove_node(second, allow_graceful=False)  # type: ignore[attr-defined]
        killed.append(time.monotonic())

    thread = threading.Thread(target=end_the_second)
    thread.start()
    try:
        result = ray_workers.run(say_tasks, llama_base, RECIPE, home, on_progress=said.append)
    finally:
        finished.set()
        thread.join()
    assert killed, "the node was to die while both were at work"
    assert sorted(result.trained) == sorted(task.name for task in say_tasks)
    assert said[-1].items_total == 3 and any(item.stage == "harvest" for item in said)
    shared = hashes(home)
    for task in say_tasks:
        AdapterStore(home).remove(task.name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each Ray task of one core had: sums depend on it
    harvest.run(say_tasks, llama_base, RECIPE, home, device="cpu")
    torch.set_num_threads(threads)
    assert hashes(home) == shared


def test_what_stops_a_task_is_told(cluster: object, llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    from icmlora_cli.workflows.harvest import ray_workers

    recipe = RECIPE.model_copy(update={"learning_rate": 3e37})
    with pytest.raises(TrainingDivergedError, match=r"the (loss|gradient's norm) is"):
        ray_workers.run(say_tasks, llama_base, recipe, home)


def hashes(home: Home) -> dict[str, list[str]]:
    return {record.task: [item.sha256 for item in record.checkpoints] for record in AdapterStore(home).all()}
