"""What each part of the generator is worth: one training a row, each differing from ``--recipe`` in one thing.

Over the registered tasks and their newest harvested adapters. A row's figures are recovered exact match (mean of the
generated over mean of the harvested) from the description (text), from demonstrations alone, from both, from another
task's description (swapped) and from random words, on tasks that were learned from and on those of split ``unseen``.
What several groups ask for is trained once, and a training that is there already is not run again. To compare
parametrizations, run it in a registry harvested in each.
"""

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.recipes import resolve
from icmlora_cli.config.train import TrainRecipe, nested
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.methods.controls import SwappedText
from icmlora_cli.methods.generated import GeneratorSource, random_text
from icmlora_cli.methods.method import TaskContext
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.weights.registered import read_last
from icmlora_cli.workflows.base import pull as base_workflow
from icmlora_cli.workflows.evaluate.evaluate import context_of
from icmlora_cli.workflows.evaluate.methods import evaluation
from icmlora_cli.workflows.progress import silent
from icmlora_cli.workflows.train import train

CONDITIONS = ("text", "demonstrations", "both", "swapped", "random")


@dataclass(frozen=True)
class Row:
    """One training.

    Args:
        label: for people.
        changes: values of the recipe that differ, without their groups.
        share: of the tasks that are learned from.
    """

    label: str
    changes: Mapping[str, object]
    share: float = 1.0


def rows(recipe: TrainRecipe) -> dict[str, Sequence[Row]]:
    """Return the rows by group; ELBO rows take only the steps that the recipe gives to it, and no queries."""
    assert recipe.episodes is not None
    queries = recipe.episodes.model_dump()
    contrast_alone = queries | {"weight": 0.0}
    rate = recipe.optimiser.pretrain_rate or recipe.optimiser.learning_rate
    before, steps = recipe.optimiser.pretrain_steps, recipe.optimiser.steps
    elbo = {
        "steps": before, "pretrain_steps": 0, "learning_rate": rate, "episodes": contrast_alone
    }  # fmt: skip
    episodes = {"pretrain_steps": 0, "elbo_weight": 0.0, "steps": steps - before}
    return {
        "losses": [Row("ELBO only", elbo), Row("episodes only", episodes), Row("both", {})],
        "prior": [
            Row("p(z | c) learned", elbo),
            Row("of neighbours", elbo | {"prior": "neighbours"}),
            Row("N(0, I)", elbo | {"prior": "standard"}),
        ],
        "tasks": [Row(f"{share:.0%} of the tasks", elbo, share) for share in (0.25, 0.5, 1.0)],
        "size": [
            Row("S", elbo | {"latent_dim": 32, "hidden_dim": 128, "code_dim": 64}),
            Row("M", elbo),
            Row("L", elbo | {"latent_dim": 128, "hidden_dim": 512, "code_dim": 512}),
        ],
        "head": [
            Row("as it is", elbo),
            Row("code normalised", elbo | {"code_norm": True}),
            Row("scale from zero", elbo | {"output_scale": True}),
            Row("mean adapter added", elbo | {"mean_adapter": True}),
            Row("bound from exp(-3.5)", elbo | {"bounded": -3.5}),
            Row("bound from exp(1)", elbo | {"bounded": 1.0}),
            Row(
                "all four", elbo | dict.fromkeys(("code_norm", "output_scale", "mean_adapter"), True) | {"bounded": 1.0}
            ),
        ],
        "terms": [
            Row("both", {}),
            Row("contrast of adapters", {"episodes": queries | {"swap_weight": 1.0}}),
            Row("distillation", {"episodes": queries | {"distill_weight": 1.0}}),
            Row("sensitivity", {"sensitivity": 0.5}),
            Row("all three", {"episodes": queries | {"swap_weight": 1.0, "distill_weight": 1.0}, "sensitivity": 0.5}),
        ],
        "reader": [Row("attention", elbo), Row("mean", elbo | {"reader": "mean"})],
    }


def main() -> None:
    """Print a table of each group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--recipe", type=Path, default=Path("train/smollm2-episodes"))
    parser.add_argument("--groups", nargs="+", help="losses, prior, tasks, size, head, terms, reader; all by default")
    parser.add_argument("--limit", type=int, default=32, help="test examples a task")
    parser.add_argument("--seen", type=int, default=8, help="tasks scored of those learned from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home = Home.from_environment()
    base = base_workflow.resolve(options.base, home)
    recipe = resolve(TrainRecipe, options.recipe, "train", {"seed": options.seed})
    store = AdapterStore(home)
    harvested = [task for task in TaskStore(home).all() if store.newest(base, task) is not None]
    learned = [task for task in harvested if task.split == "train"]
    unseen = [task for task in harvested if task.split == "unseen"]
    if not learned:
        parser.error("nothing is harvested: icmlora harvest")
    order = [task.name for task in learned]
    random.Random(f"ablation {options.seed}").shuffle(order)
    table = Table(load_base(base), home, options.limit, options.seed)
    lines: dict[str, list[str]] = {}
    for group, items in rows(recipe).items():
        if options.groups and group not in options.groups:
            continue
        columns = [f"{part}, {name}" for part in ("seen", "unseen") for name in CONDITIONS]
        print(f"\n| {group} | {' | '.join(columns)} | bytes | minutes |\n|{'---|' * (len(columns) + 3)}", flush=True)
        for item in items:
            names = set(order[: max(2, round(item.share * len(order)))])
            own = [task for task in learned if task.name in names]
            changed = TrainRecipe.model_validate(nested(recipe.flat() | dict(item.changes)))
            what = json.dumps([changed.model_dump(mode="json"), sorted(names)], sort_keys=True)
            name = f"ablation-{hashlib.sha256(what.encode()).hexdigest()[:10]}"
            if name not in lines:
                started = time.monotonic()
                made = train.run(own, base, changed, home, name=name)
                minutes = (time.monotonic() - started) / 60
                shown = [task for task in own if task.name in order[: options.seen]]
                figures = [*table.line(shown, made.folder), *table.line(unseen, made.folder)]
                took = f"{minutes:.1f}" if made.trained else "-"
                lines[name] = [*(f"{value:.2f}" for value in figures), str(made.bytes), took]
            print(f"| {item.label} | {' | '.join(lines[name])} |", flush=True)


@dataclass
class Table:
    """Scores generators on tasks.

    Args:
        loaded: the base.
        home: the registry.
        limit: test examples a task.
        seed: of the shots.
    """

    loaded: LoadedBase
    home: Home
    limit: int
    seed: int

    def __post_init__(self) -> None:
        self.oracles: dict[str, float] = {}

    def line(self, tasks: Sequence[Task], folder: Path) -> list[float]:
        """Return the recovered exact match of each condition, mean over tasks."""
        shared = evaluation(tasks, self.loaded, self.home, EvalRecipe(seed=self.seed), folder, silent)
        source = shared.source()
        assert source is not None
        swapped = SwappedText(*shared.texts())
        sums, oracles = [0.0] * len(CONDITIONS), sum(self.oracle(task) for task in tasks)
        for task in tasks:
            context = context_of(task, shared)
            makers = makers_of(source, context, swapped)
            for at, name in enumerate(CONDITIONS):
                sums[at] += self.exact(task, makers[name]())
        return [found / oracles if oracles else math.nan for found in sums]

    def oracle(self, task: Task) -> float:
        """Return the exact match of the task's harvested adapter."""
        if task.name not in self.oracles:
            store = AdapterStore(self.home)
            self.oracles[task.name] = self.exact(task, read_last(store, store.latest(self.loaded.base, task)))
        return self.oracles[task.name]

    def exact(self, task: Task, adapter: Adapter) -> float:
        """Return the share of the test examples that are answered exactly."""
        examples = task.examples("test")[: self.limit]
        with merged(self.loaded.model, adapter):
            return score_rows(self.loaded, encode_task(self.loaded.family, task, examples)).exact_match


def makers_of(source: GeneratorSource, context: TaskContext, swapped: SwappedText) -> dict[str, Callable[[], Adapter]]:
    """Return what makes the adapter of each condition."""
    return {
        "text": lambda: source.make(context.text),
        "demonstrations": lambda: source.make(None, context.shots),
        "both": lambda: source.make(context.text, context.shots),
        "swapped": lambda: source.make(swapped(context)),
        "random": lambda: source.make(random_text(context)),
    }


if __name__ == "__main__":
    main()
