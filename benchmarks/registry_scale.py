"""A registry of 1,000 tasks and 5,000 adapters: what listing it costs beyond the start of Python, and adding to it.

Real files as icmlora writes them, small ones, in a temporary folder. Times are medians of 5 runs; the baseline is
``python -c pass`` for the commands, and the first tasks and adapters for the last ones.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.manifests.adapter import AdapterAbout
from icmlora_cli.registry.adapters import CONFIG, WEIGHTS, AdapterRecord, AdapterStore, checkpoint_of
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec

RUNS = 5
EDGE = 20  # additions at either end that are compared
COMMANDS = (("task", "list"), ("adapter", "list"), ("storage",))


def add_task(home: Home, index: int) -> Task:
    """Register a task of 40 examples."""
    rows = [Example(f"word {row}", f"answer {index}") for row in range(40)]
    values = {"name": f"task_{index:05d}", "description": f"Say answer {index}."}
    spec = TaskSpec.model_validate(values | {"examples": [vars(row) for row in rows]})
    return TaskStore(home).add(spec, rows)[0]


def add_adapter(home: Home, task: Task, index: int) -> None:
    """Write a finished adapter of one checkpoint and rank 4."""
    folder = home.adapters / "tiny" / task.name / f"{index:012x}"
    inner = folder / "checkpoint-00100"
    inner.mkdir(parents=True)
    numbers = np.random.default_rng([index, int(task.name[-5:])])
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {"lora_A": numbers.standard_normal((4, 32)), "lora_B": numbers.standard_normal((32, 4))}
    save_file({f"{name}.{key}.weight": item.astype(np.float32) for key, item in factors.items()}, inner / WEIGHTS)
    files.write_json(inner / CONFIG, {"peft_type": "LORA", "r": 4, "lora_alpha": 4})
    kept = checkpoint_of(inner)
    AdapterStore(home).record(
        AdapterRecord(
            task=task.name,
            key=folder.name,
            base="tiny",
            weight_hash="w" * 64,
            data_hash=task.data_hash,
            created=f"2026-01-01T00:00:{index:02d}+00:00",
            checkpoints=(kept,),
            figures={"loss": 0.1, "seconds": 3.0, "exact_match": 0.5, "nll": 1.0},
            about=AdapterAbout(model_id="tiny", recipe={"rank": 4}),
            folder=folder,
        )
    )


def seconds(command: list[str], home: Home) -> float:
    """Return the median wall time of a process."""
    environment = os.environ | {"ICMLORA_HOME": str(home.root), "ICMLORA_CACHE": str(home.cache)}
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def edges(times: list[float]) -> tuple[float, float]:
    """Return the medians of the first additions and of the last."""
    return statistics.median(times[:EDGE]), statistics.median(times[-EDGE:])


def main() -> None:
    """Fill a registry, and print what each command and each addition takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--adapters", type=int, default=5, help="of each task")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        home = Home(Path(root) / "home", Path(root) / "cache")
        of_tasks, of_adapters = [], []
        for index in range(options.tasks + 1):
            start = time.perf_counter()
            task = add_task(home, index)
            of_tasks.append(time.perf_counter() - start)
            for own in range(options.adapters):
                start = time.perf_counter()
                add_adapter(home, task, own)
                of_adapters.append(time.perf_counter() - start)
        python = seconds([sys.executable, "-c", "pass"], home)
        print(f"{options.tasks + 1} tasks, {len(of_adapters)} adapters; python -c pass: {python:.3f} s")
        for command in COMMANDS:
            took = seconds([sys.executable, "-m", "icmlora_cli", *command], home) - python
            print(f"icmlora {' '.join(command)}: {took:.2f} s beyond it")
        for what, times in (("task", of_tasks), ("adapter", of_adapters)):
            first, last = edges(times)
            print(f"adding the last {what}: {last * 1000:.2f} ms, {last / first:.2f} x the first {EDGE}")


if __name__ == "__main__":
    main()
