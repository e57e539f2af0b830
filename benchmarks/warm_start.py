"""Steps of fine-tuning until a task's loss is that of its harvested adapter: from a generated start and from zero.

For each task with a harvested adapter, the oracle: a LoRA starts as the generator makes it from the description, or as
one with delta-W zero (rank and rates of its own), and is fine-tuned on the task's training examples, as ``icmlora
finetune`` does. Every few steps its NLL on test examples is taken; reached is what is within ``--near`` nats a token of
the oracle's. A start from zero is tried at each of ``--rates``, the generated one at the first; the best zero counts.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.trainers import AdapterTrainer, ContinuedTrainer, LoraTrainer
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.weights.registered import read_last
from icmlora_cli.workflows.base import pull as base_workflow
from icmlora_cli.workflows.evaluate.methods import evaluation
from icmlora_cli.workflows.progress import silent


@dataclass(frozen=True)
class Course:
    """NLL on the test examples along a fine-tuning.

    Args:
        steps: after how many.
        nll: nats per answer token, mean over examples; of the same length.
    """

    steps: tuple[int, ...]
    nll: tuple[float, ...]

    def reached(self, nll: float) -> float:
        """Return the first of the steps with this NLL or a lower one, or infinity."""
        return next((step for step, own in zip(self.steps, self.nll, strict=True) if own <= nll), math.inf)

    @property
    def lowest(self) -> float:
        """The lowest NLL."""
        return min(self.nll)


def course(trainer: AdapterTrainer, rows: Sequence[Encoded], test: Sequence[Encoded], every: int) -> Course:
    """Fine-tune, score on the test examples before and every few steps, and close the trainer."""
    adapted = replace(trainer.loaded, model=trainer.model)
    trainer.reset()
    steps, nll = [0], [score_rows(adapted, test).mean_nll]

    def look(step: int, loss: float) -> None:
        if step % every == 0:
            steps.append(step)
            nll.append(score_rows(adapted, test).mean_nll)

    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.safetensors"
        finetune(trainer, rows, state=state, identity="", on_step=look)
    trainer.close()
    return Course(tuple(steps), tuple(nll))


def compare(
    task: Task, loaded: LoadedBase, oracle: Adapter, made: Adapter, rates: Sequence[float], options: argparse.Namespace
) -> tuple[float, Course, Course, float]:
    """Return the oracle's NLL, the courses from the generated start and from zero, and the latter's rate."""
    rows = encode_task(loaded.family, task, task.examples("train")[: options.examples])
    test = encode_task(loaded.family, task, task.examples("test")[: options.limit])
    with merged(loaded.model, oracle):
        wanted = score_rows(loaded, test).mean_nll
    recipes = [
        HarvestRecipe(steps=options.steps, learning_rate=rate, keep=1, rank=8, alpha=16.0, seed=options.seed)
        for rate in rates
    ]
    warm = course(ContinuedTrainer(loaded, recipes[0], made), rows, test, options.every)
    cold = [course(LoraTrainer(loaded, recipe), rows, test, options.every) for recipe in recipes]
    target = wanted + options.near
    best = min(range(len(rates)), key=lambda index: (cold[index].reached(target), cold[index].lowest))
    return wanted, warm, cold[best], rates[best]


def main() -> None:
    """Print a row for each task, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("-g", "--generator", default="default")
    parser.add_argument("--tasks", nargs="+", help="harvested ones, names or patterns; all of split unseen by default")
    parser.add_argument("--examples", type=int, default=64, help="training examples")
    parser.add_argument("--limit", type=int, default=32, help="test examples")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=2, help="steps between scores")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--near", type=float, default=0.05, help="nats a token")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home = Home.from_environment()
    loaded = load_base(base_workflow.resolve(options.base, home))
    store = AdapterStore(home)
    asked = [task for task in TaskStore(home).select(options.tasks) if options.tasks or task.split == "unseen"]
    tasks = [task for task in asked if task.has_examples and store.newest(loaded.base, task) is not None]
    if not tasks:
        parser.error("none of these tasks is harvested: icmlora harvest")
    folder = GeneratorStore(home).find(options.generator)
    source = evaluation(tasks, loaded, home, EvalRecipe(seed=options.seed), folder, silent).source()
    assert source is not None
    print("| task | oracle's NLL | generated: at once | lowest | steps | zero: at once | lowest | steps | rate |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    warm_steps, cold_steps = [], []
    for task in tasks:
        oracle = read_last(store, store.latest(loaded.base, task))
        made = source.make(task.descriptions[0])
        wanted, warm, cold, rate = compare(task, loaded, oracle, made, options.rates, options)
        reached = [item.reached(wanted + options.near) for item in (warm, cold)]
        warm_steps.append(reached[0])
        cold_steps.append(reached[1])
        told = [
            f"{item.nll[0]:.3f} | {item.lowest:.3f} | {step:g}"
            for item, step in zip((warm, cold), reached, strict=True)
        ]
        print(f"| {task.name} | {wanted:.3f} | {' | '.join(told)} | {rate:g} |", flush=True)
    print(f"median steps: generated {statistics.median(warm_steps):g}, zero {statistics.median(cold_steps):g}")


if __name__ == "__main__":
    main()
