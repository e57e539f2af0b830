"""Do adapters that are sums of learned parts do combinations of parts that were not trained?

Built-in tasks whose names are two parts, such as ``past_phrase``, get a core in the frame for each part; a task's core
is the sum of its two. The parts are trained together through the base on tasks of split ``train``, some rows a step,
each of a task drawn at random; those of split ``unseen`` are sums of parts that were all trained. The baseline of a row
is the base itself, whose adapter is zero.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.batching import IGNORED, answer_log_probs, collate
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.weights.frame import FrameSpec, framed_adapter, seeded_frame
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.base import pull as base_workflow

FAMILIES = ("morphology", "letters", "case")


def parts_of(task: Task) -> tuple[str, str]:
    """Return the two parts of a task's name; those of letters are no words of the others."""
    first, _, last = task.name.rpartition("_")
    return f"{task.family}: {first}", f"letters: {last}" if task.family == "letters" else last


@dataclass
class Parts:
    """The cores of the parts.

    Args:
        loaded: the frozen base.
        names: of the parts.
        recipe: gives modules and frame.
    """

    loaded: LoadedBase
    names: Sequence[str]
    recipe: HarvestRecipe

    def __post_init__(self) -> None:
        layout = target_layout(self.loaded.model, self.recipe.target_modules)
        spec = FrameSpec(self.recipe.seed, self.recipe.rank)
        self.frame = seeded_frame(layout, spec, self.loaded.base.model_id)
        modules = [item.name for item in layout.modules]
        self.rows = RowCores(self.loaded.model, modules, self.frame.left, self.frame.right)
        width = self.frame.width
        self.cores = torch.nn.Parameter(
            torch.zeros(len(self.names), len(modules), width, width)
        )  # (parts, modules, R, R)

    def core(self, task: Task) -> torch.Tensor:
        """Return the sum of a task's parts, [modules, R, R]."""
        return self.cores[[self.names.index(part) for part in parts_of(task)]].sum(0)

    def fit(self, tasks: Sequence[Task], options: argparse.Namespace) -> None:
        """Train the parts, and print the loss now and then, in nats per answer token."""
        source, pad = random.Random(options.seed), self.loaded.tokenizer.pad_token_id
        data = [encode_task(self.loaded.family, task, task.examples("train")) for task in tasks]
        optimizer = torch.optim.AdamW([self.cores], lr=options.rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, options.rate, total_steps=options.steps, pct_start=0.1
        )
        for step in range(options.steps):
            chosen = [source.randrange(len(tasks)) for _ in range(options.rows)]
            batch = collate([source.choice(data[index]) for index in chosen], pad, self.loaded.device)
            cores = torch.stack([self.core(tasks[index]) for index in chosen])
            with self.rows.applied(cores):
                log_probs, _ = answer_log_probs(self.loaded.model, batch)
            loss = -log_probs.sum() / (batch.labels != IGNORED).sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([self.cores], self.recipe.max_grad_norm)
            optimizer.step()
            schedule.step()
            if (step + 1) % 50 == 0:
                print(f"step {step + 1}: loss {float(loss.detach()):.3f}", flush=True)

    def scored(self, task: Task, limit: int) -> tuple[float, float, float, float]:
        """Return exact match and mean NLL (nats per answer token) on test examples, with the sum and without."""
        rows = encode_task(self.loaded.family, task, task.examples("test")[:limit])
        plain = score_rows(self.loaded, rows)
        with merged(self.loaded.model, framed_adapter(self.frame, self.core(task).detach().clone())):
            found = score_rows(self.loaded, rows)
        return found.exact_match, found.mean_nll, plain.exact_match, plain.mean_nll


def main() -> None:
    """Print a row for each task: those that were trained first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rows", type=int, default=16, help="a step")
    parser.add_argument("--rank", type=int, default=16, help="R of the frame")
    parser.add_argument("--rate", type=float, default=2e-2)
    parser.add_argument("--limit", type=int, default=32, help="test examples")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home = Home.from_environment()
    tasks = [task for task in TaskStore(home).select(None) if task.family in FAMILIES]
    tasks.sort(key=lambda task: task.split)
    if not tasks:
        parser.error("none of these tasks is registered: icmlora task add 'builtin:*'")
    loaded = load_base(base_workflow.resolve(options.base, home), device="cpu")
    names = sorted({part for task in tasks for part in parts_of(task)})
    recipe = HarvestRecipe(parametrization="frame", rank=options.rank, seed=options.seed)
    parts = Parts(loaded, names, recipe)
    learned = [task for task in tasks if task.split == "train"]
    print(f"{len(learned)} tasks, {len(names)} parts: {', '.join(names)}", flush=True)
    parts.fit(learned, options)
    print("| task | split | exact match | NLL | base: exact match | NLL |\n|---|---|---|---|---|---|")
    for task in tasks:
        exact, nll, plain, plain_nll = parts.scored(task, options.limit)
        print(f"| {task.name} | {task.split} | {exact:.2f} | {nll:.2f} | {plain:.2f} | {plain_nll:.2f} |", flush=True)


if __name__ == "__main__":
    main()
