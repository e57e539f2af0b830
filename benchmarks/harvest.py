"""Tokens a second of a harvest, against Hugging Face's Trainer with PEFT: the same tasks, rank, batch and steps.

Each row is a process of its own that trains the same LoRAs (rank 4, q_proj and v_proj) of built-in tasks on
SmolLM2-135M: icmlora with N tasks in each pass, and the Trainer with a collator that pads, one task after the other,
which is the baseline, or in K processes that share the tasks and the cores. Only tokens that are not padding count. The
share is that of the peak of a matrix product of this machine, measured in the same run, on the FLOPs that are needed:
two passes through the blocks (forward, and backward to the activations), and the head where an answer's token is
predicted. A pass of few tokens cannot reach that peak, since its products have few rows: the last column is the share
of what products of so many rows reach alone.

PEFT's own way to put rows of several adapters into a batch (``adapter_names``) refuses a model in training mode, so a
second table compares forward passes alone: PEFT's, which is its baseline, and icmlora's, on the same rows, with logits
where an answer's token is predicted.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.batching import TokenBatch, collate, training_batches
from icmlora_cli.lm.finetune import train_through
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.lm.side_by_side import SharedPasses, make_slots
from icmlora_cli.lm.task_training import Listeners, TaskTraining
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows.base.pull import resolve

FORWARD = {"peft": "PEFT's mixed batch", "icmlora": "icmlora"}
TASKS = ("pick_last_of_3", "capitalize_word", "color_among_animals_3", "past_word")


def peak_flops(rows: int = 512) -> float:
    """Return the FLOPs a second of the best of several matrix products, fp32.

    Args:
        rows: the rows of the first matrix, such as the tokens of a pass; many of them give the machine's peak.
    """
    a, b = torch.randn(rows, 576), torch.randn(576, 1536)
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * rows * 576 * 1536 / min(seconds)


def train_icmlora(
    rows: Sequence[Sequence[Encoded]], loaded: LoadedBase, recipe: HarvestRecipe, together: int, folder: Path
) -> None:
    """Train a LoRA of each task's rows, ``together`` of them in each pass."""

    def listeners(index: int) -> Listeners:
        return Listeners(folder / f"state-{together}-{index}", "benchmark", lambda step, loss: None)

    if together == 1:
        with trainer_of(loaded, recipe) as trainer:
            for index, own in enumerate(rows):
                train_through(trainer, TaskTraining(trainer, own, listeners(index)))
        return
    for start in range(0, len(rows), together):
        part = rows[start : start + together]
        side = make_slots(loaded, recipe, len(part))
        trainings = [TaskTraining(side.slots[at], own, listeners(start + at)) for at, own in enumerate(part)]
        passes = SharedPasses(side)
        while not trainings[0].finished:
            losses = passes.gradients({at: item.batch() for at, item in enumerate(trainings)})
            for at, item in enumerate(trainings):
                item.advance(losses[at])
        side.close()


def peft_config(recipe: HarvestRecipe) -> LoraConfig:
    """Return PEFT's configuration of the LoRAs that the recipe trains."""
    return LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )


def train_trainer(rows: Sequence[Sequence[Encoded]], loaded: LoadedBase, recipe: HarvestRecipe, folder: Path) -> None:
    """Train a LoRA of each task's rows by the Trainer, one after the other."""
    for own in rows:
        model = get_peft_model(loaded.model, peft_config(recipe))
        data = [
            {
                "input_ids": [*row.prompt_ids, *row.answer_ids],
                "attention_mask": [1] * row.length,
                "labels": [-100] * len(row.prompt_ids) + list(row.answer_ids),
            }
            for row in own
        ]
        arguments = TrainingArguments(
            output_dir=str(folder / "trainer"), per_device_train_batch_size=recipe.batch_size, max_steps=recipe.steps,
            learning_rate=recipe.learning_rate, report_to=[], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, use_cpu=loaded.device.type == "cpu", seed=recipe.seed,
        )  # fmt: skip
        collator = DataCollatorForSeq2Seq(loaded.tokenizer, padding=True)
        Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator).train()
        model.unload()


class MixedBatch(torch.nn.Module):
    """PEFT's forward pass of rows that have an adapter each.

    Args:
        model: the base with an adapter of each task, in eval mode, which PEFT asks for.
        names: the name of each row's adapter.
    """

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        """Keep the model and the names."""
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, **inputs: object) -> object:
        """Return what the model gives, each row with its own adapter."""
        return self.model(**inputs, adapter_names=self.names)


def shared_batches(
    rows: Sequence[Sequence[Encoded]], plans: Sequence[Sequence[Sequence[int]]]
) -> Iterator[list[Encoded]]:
    """Yield the rows of each step of all tasks together, one task after the other."""
    for step in zip(*plans, strict=True):
        yield [own[index] for own, batch in zip(rows, step, strict=True) for index in batch]


@torch.no_grad()
def forward_alone(
    method: str, batches: Sequence[Sequence[Encoded]], loaded: LoadedBase, recipe: HarvestRecipe, tasks: int
) -> float:
    """Return the seconds of the forward passes of batches in which all tasks have as many rows, one after the other."""
    each = len(batches[0]) // tasks
    ready = [collate(batch, loaded.tokenizer.pad_token_id, loaded.device) for batch in batches]
    model: torch.nn.Module = loaded.model
    applied: Callable[[], AbstractContextManager[None]] = nullcontext
    if method == "peft":
        mixed = get_peft_model(loaded.model, peft_config(recipe), adapter_name="0")
        for index in range(1, tasks):
            mixed.add_adapter(str(index), peft_config(recipe))
        model = MixedBatch(mixed.eval(), [str(index) for index in range(tasks) for _ in range(each)])
    else:
        applied = partial(make_slots(loaded, recipe, tasks).applied, range(tasks), each)

    def run(batch: TokenBatch) -> None:
        with applied():
            batch.logits(model)[0, 0, 0].item()  # which waits until it is computed

    run(ready[0])  # not counted: it takes memory
    started = time.perf_counter()
    for batch in ready:
        run(batch)
    return time.perf_counter() - started


def wait_for(folder: Path, count: int) -> None:
    """Say that this process is ready, and wait until as many are."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < count:
        time.sleep(0.01)


def measure(options: argparse.Namespace) -> None:
    """Print tokens, needed FLOPs, seconds and peak memory of one method as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        own = Home.from_environment()
        loaded = load_base(resolve(options.base, own))
        store = TaskStore(Home(root=Path(folder), cache=own.cache))
        recipe = HarvestRecipe(steps=options.steps, save_every=options.steps)
        found = [store.add_builtin(name) for name in options.tasks]
        rows = [encode_task(loaded.family, task, task.examples("train")) for task in found]
        plans = [
            training_batches(
                [row.length for row in own_rows], batch_size=recipe.batch_size, steps=options.steps, seed=recipe.seed
            )
            for own_rows in rows
        ]
        batches = list(shared_batches(rows, plans))
        tokens = sum(row.length for batch in batches for row in batch)
        answers = sum(len(row.answer_ids) for batch in batches for row in batch)
        config = loaded.model.config
        head = config.vocab_size * config.hidden_size
        blocks = sum(item.numel() for item in loaded.model.parameters()) - head
        if options.ready is not None:
            wait_for(options.ready, options.processes)
        passes = 1 if options.child in FORWARD else 2
        started = time.perf_counter()
        if options.child in FORWARD:
            seconds = forward_alone(options.child, batches, loaded, recipe, len(found))
        elif options.child == "trainer":
            train_trainer(rows, loaded, recipe, Path(folder))
            seconds = time.perf_counter() - started
        else:
            train_icmlora(rows, loaded, recipe, int(options.child), Path(folder))
            seconds = time.perf_counter() - started
    print(json.dumps({
        "tokens": tokens, "flops": 2 * passes * (blocks * tokens + head * answers), "seconds": seconds,
        "device": loaded.device.type, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))  # fmt: skip


def figures_of(method: str, options: argparse.Namespace, processes: int = 1) -> dict[str, float | str]:
    """Return the figures of a method, in one process, or in several that begin at once and share tasks and cores."""
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for index in range(processes):
            own = options.tasks[index::processes]
            command = [
                sys.executable,
                __file__,
                "--child",
                method,
                "--steps",
                str(options.steps),
                "--base",
                options.base,
            ]
            command += ["--tasks", *own, "--processes", str(processes), "--ready", folder]
            environment = dict(os.environ)
            if processes > 1:
                environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
            children.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        while any(child.poll() is None for child in children):
            if any(child.returncode for child in children):
                for child in children:
                    child.kill()  # they would wait for the one that failed
            time.sleep(0.1)
        if any(child.returncode for child in children):
            raise SystemExit(f"{method} failed")
        outputs = [child.communicate()[0] for child in children]
    every = [json.loads(output.splitlines()[-1]) for output in outputs]
    together = {name: sum(item[name] for item in every) for name in ("tokens", "flops", "memory")}
    return together | {"seconds": max(item["seconds"] for item in every), "device": every[0]["device"]}


def table(rows: Sequence[tuple[str, str, int]], options: argparse.Namespace, peak: float) -> None:
    """Measure methods, given as title, method and number of processes, and print a row for each."""
    print("| method | tokens/s | ratio | tasks/h | MB | share of peak | of its rows' peak |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    baseline = None
    for title, method, processes in rows:
        figures = figures_of(method, options, processes)
        seconds = float(figures["seconds"])
        speed = float(figures["tokens"]) / seconds
        baseline = baseline or speed
        shares = "- | -"
        if figures["device"] == "cpu":  # a GPU's peak is not measured here
            together = int(method) if method.isdecimal() else 1
            rows_of_pass = round(together * float(figures["tokens"]) / options.steps / len(options.tasks))
            reached = float(figures["flops"]) / seconds
            shares = f"{reached / peak:.2f} | {reached / peak_flops(rows_of_pass):.2f}"
        hour = f"{3600 * len(options.tasks) / seconds:.0f}"
        memory = f"{float(figures['memory']) / 1e6:.0f}"
        print(f"| {title} | {speed:.0f} | {speed / baseline:.2f} | {hour} | {memory} | {shares} |", flush=True)


def main() -> None:
    """Measure all methods, each in processes of its own, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument(
        "--methods", nargs="*", default=["trainer", "trainer:2", "1", "2", "4"],
        help="trainer, trainer:K in K processes, or N of icmlora",
    )  # fmt: skip
    parser.add_argument("--no-forward", action="store_true", help="leave the table of forward passes out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--ready", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options)
        return
    peak, rows = peak_flops(), []
    for method in options.methods:
        name, _, count = method.partition(":")
        title = "Trainer and PEFT" if name == "trainer" else f"icmlora, N = {name}"
        processes = int(count or 1)
        if not 1 <= processes <= len(options.tasks):
            parser.error(f"{method}: {len(options.tasks)} tasks are too few for {processes} processes")
        rows.append((f"{title}, {processes} processes" if processes > 1 else title, name, processes))
    if rows:
        table(rows, options, peak)
    if not options.no_forward:
        count = len(options.tasks)
        print(f"\nforward passes alone, {count} tasks in each:\n")
        table([(title, method, 1) for method, title in FORWARD.items()], options, peak)


if __name__ == "__main__":
    main()
