"""Methods that fine-tune: on the k examples for some seconds, and one LoRA on all training tasks together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk import files
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.lengths import task_rows
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.quick_tune import tune_for
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.methods.method import Served, TaskContext, UnavailableError, Uses
from icmlora_cli.registry.tasks import Task
from icmlora_cli.weights.adapter import CONFIG, read_adapter, write_adapter

PER_TASK = 400  # examples of each task in the multi-task LoRA's data, so that large tasks do not drown small ones


@dataclass(frozen=True)
class TunedMethod:
    """A LoRA fine-tuned from nothing on the k examples within a wall time.

    Args:
        loaded: the base.
        recipe: rank, rate and clipping, as in harvesting.
        seconds: how long, for a task: a constant, or as long as generating its adapter takes.
        name: of the method.
        title: of the method.
        about_time: says how long, for the score's identity.
    """

    loaded: LoadedBase
    recipe: HarvestRecipe
    seconds: Callable[[TaskContext], float]
    name: str
    title: str
    about_time: str
    uses: Uses = "examples"

    def identity(self, context: TaskContext) -> object:
        """Return the recipe and how the time is set."""
        return [self.recipe.model_dump(mode="json"), self.about_time]

    def serve(self, context: TaskContext) -> Served:
        """Return the tuned adapter, with the steps taken in that time.

        Raises:
            UnavailableError: if the task has no training example.
        """
        if not context.shots:
            raise UnavailableError("the task has no training example to tune on")
        budget = self.seconds(context)
        rows = task_rows(self.loaded, context.task, context.shots)
        with trainer_of(self.loaded, self.recipe) as trainer:
            tuned = tune_for(trainer, rows, seconds=budget)
        return Served(tuned.adapter, about={"steps": tuned.steps, "loss": tuned.loss})


@dataclass(frozen=True)
class MultiTaskMethod:
    """One LoRA trained on the training tasks' examples together; trained once, kept, and resumed where it stopped.

    Args:
        loaded: the base.
        tasks: the training tasks.
        recipe: how it is trained, and for how many steps.
        folder: where multi-task adapters are kept.
        on_step: told the steps done.
    """

    loaded: LoadedBase
    tasks: Sequence[Task]
    recipe: HarvestRecipe
    folder: Path
    on_step: Callable[[int], None]
    name: str = "multi-task"
    title: str = "one LoRA trained on all tasks"
    uses: Uses = "nothing"

    def identity(self, context: TaskContext) -> object:
        """Return base, data and recipe."""
        return [
            self.loaded.base.weight_hash,
            str(self.loaded.dtype),
            PER_TASK,
            [[task.name, task.data_hash] for task in self.tasks],
            self.recipe.model_dump(mode="json", exclude={"save_every", "validate_on", "keep", "keep_every"}),
            *self.loaded.base.encoding,
        ]

    def serve(self, context: TaskContext) -> Served:
        """Return the multi-task adapter, the same for every task.

        Raises:
            UnavailableError: if there is no training task.
        """
        if not self.tasks:
            raise UnavailableError("there is no training task to learn from")
        key = files.sha256_json(self.identity(context))[:12]
        target = self.folder / f"multi-task-{key}"
        if not (target / CONFIG).is_file():
            self._train(target, key)
        return Served(read_adapter(target), about={"steps": self.recipe.steps, "tasks": len(self.tasks)})

    def _train(self, target: Path, key: str) -> None:
        rows: list[Encoded] = []
        for task in self.tasks:
            rows += task_rows(self.loaded, task, task.examples("train")[:PER_TASK])
        state = target / "state.safetensors"
        with trainer_of(self.loaded, self.recipe) as trainer:
            finetune(trainer, rows, state=state, identity=key, on_step=lambda step, _: self.on_step(step))
            write_adapter(target, trainer.adapter(), revision=self.loaded.base.revision)
        state.unlink(missing_ok=True)
