"""Three tiny tasks, two of them harvested, and a generator that learned those two."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.load import load_base
from icmlora_cli.methods.harvested import Library
from icmlora_cli.methods.method import TaskContext
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.workflows.evaluate.evaluate import context_of
from icmlora_cli.workflows.evaluate.methods import EvalContext, evaluation
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import silent
from icmlora_cli.workflows.train import train
from tests.train_recipes import train_recipe

HARVEST = HarvestRecipe(steps=30, batch_size=6, learning_rate=3e-2, keep=1, rank=2)
TRAIN = train_recipe(
    steps=250, batch_size=8, learning_rate=3e-3, hidden_dim=48, code_dim=16, latent_dim=4, save_every=100,
    vectors=VectorRecipe(draws=3, shots=2),
)  # fmt: skip
WORDS = {"always_cat": "Always answer with cat.", "always_dog": "Whatever is asked, say dog."}


def make_tasks(home: Home) -> tuple[Task, ...]:
    """Register two tasks to learn and one that is kept apart."""
    made = []
    for name, text in (WORDS | {"always_owl": "Say owl."}).items():
        rows = [{"input": f"{name} {index}", "output": name.removeprefix("always_")} for index in range(40)]
        split = "train" if name in WORDS else "unseen"
        spec = TaskSpec.model_validate({"name": name, "description": text, "examples": rows, "split": split})
        made.append(TaskStore(home).add(spec, [Example(**row) for row in rows])[0])
    return tuple(made)


@dataclass(frozen=True)
class Room:
    """What the tests of methods share."""

    evaluation: EvalContext
    base: Base
    home: Home
    tasks: tuple[Task, ...]

    @property
    def library(self) -> Library:
        """The harvested adapters of the training tasks."""
        return self.evaluation.library

    def context(self, index: int) -> TaskContext:
        """Return the context of a task."""
        return context_of(self.tasks[index], self.evaluation)


@pytest.fixture
def make_room(llama_base: Base, home: Home) -> Callable[..., Room]:
    """Make the registry, and train the generator unless it is not needed."""

    def make(*, generator: bool = True, **settings: object) -> Room:
        tasks = make_tasks(home)
        harvest.run(tasks[:2], llama_base, HARVEST, home, device="cpu")
        folder = train.run(tasks[:2], llama_base, TRAIN, home, device="cpu").folder if generator else None
        recipe = EvalRecipe.model_validate(
            {"shots": 4, "samples": 3, "multi_task_steps": 12, "baseline_steps": 100} | settings
        )
        shared = evaluation(tasks, load_base(llama_base, device="cpu"), home, recipe, folder, silent)
        return Room(shared, llama_base, home, tasks)

    return make
