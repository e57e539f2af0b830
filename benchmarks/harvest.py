"""Tokens a second of a harvest, against Hugging Face's Trainer with PEFT: the same tasks, rank, batch and steps.

Each row is a process of its own that trains the same LoRAs (rank 4, q_proj and v_proj) of built-in tasks on
SmolLM2-135M: icmlora with N tasks in each pass, and the Trainer with a collator that pads, one task after the other,
which is the baseline. Only tokens that are not padding count. The share is that of the peak of a matrix product of this
machine, measured in the same run, on the FLOPs that are needed: two passes through the blocks (forward, and backward to
the activations), and the head where an answer's token is predicted.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.batching import training_batches
from icmlora_cli.lm.finetune import train_through
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.lm.side_by_side import SharedPasses, make_slots
from icmlora_cli.lm.task_training import Listeners, TaskTraining
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows.base.pull import resolve

TASKS = ("pick_last_of_3", "capitalize_word", "color_among_animals_3", "past_word")


def peak_flops() -> float:
    """Return the FLOPs a second of the best of several matrix products, fp32."""
    a, b = torch.randn(512, 576), torch.randn(576, 1536)
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * 512 * 576 * 1536 / min(seconds)


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


def train_trainer(rows: Sequence[Sequence[Encoded]], loaded: LoadedBase, recipe: HarvestRecipe, folder: Path) -> None:
    """Train a LoRA of each task's rows by the Trainer, one after the other."""
    for own in rows:
        config = LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        )
        model = get_peft_model(loaded.model, config)
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


def measure(method: str, steps: int, tasks: Sequence[str]) -> None:
    """Print tokens, needed FLOPs, seconds and peak memory of one method as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        own = Home.from_environment()
        loaded = load_base(resolve("smollm2-135m", own))
        store = TaskStore(Home(root=Path(folder), cache=own.cache))
        recipe = HarvestRecipe(steps=steps, save_every=steps)
        found = [store.add_builtin(name) for name in tasks]
        rows = [encode_task(loaded.family, task, task.examples("train")) for task in found]
        tokens = answers = 0
        for own_rows in rows:
            plan = training_batches([row.length for row in own_rows], batch_size=12, steps=steps, seed=recipe.seed)
            seen = [own_rows[index] for batch in plan for index in batch]
            tokens += sum(row.length for row in seen)
            answers += sum(len(row.answer_ids) for row in seen)
        config = loaded.model.config
        head = config.vocab_size * config.hidden_size
        blocks = sum(item.numel() for item in loaded.model.parameters()) - head
        started = time.perf_counter()
        if method == "trainer":
            train_trainer(rows, loaded, recipe, Path(folder))
        else:
            train_icmlora(rows, loaded, recipe, int(method), Path(folder))
        seconds = time.perf_counter() - started
    peak = peak_flops() if loaded.device.type == "cpu" else None
    print(json.dumps({
        "tokens": tokens, "flops": 4 * blocks * tokens + 4 * head * answers, "seconds": seconds, "peak": peak,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))  # fmt: skip


def main() -> None:
    """Measure all methods, each in a process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--methods", nargs="+", default=["trainer", "1", "2", "4"], help="trainer, or N of icmlora")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.child, options.steps, options.tasks)
        return
    print("| method | tokens/s | ratio | tasks/h | share of matmul peak | MB |\n|---|---|---|---|---|---|")
    baseline = None
    for method in options.methods:
        command = [
            sys.executable,
            __file__,
            "--child",
            method,
            "--steps",
            str(options.steps),
            "--tasks",
            *options.tasks,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        speed = figures["tokens"] / figures["seconds"]
        baseline = baseline or speed
        share = "-" if figures["peak"] is None else f"{figures['flops'] / figures['seconds'] / figures['peak']:.2f}"
        hour = 3600 * len(options.tasks) / figures["seconds"]
        name = "Trainer and PEFT" if method == "trainer" else f"icmlora, N = {method}"
        print(
            f"| {name} | {speed:.0f} | {speed / baseline:.2f} | {hour:.0f} | {share} | {figures['memory'] / 1e6:.0f} |"
        )


if __name__ == "__main__":
    main()
