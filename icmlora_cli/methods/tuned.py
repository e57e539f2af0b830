"""Methods that fine-tune a LoRA: on the k examples for some seconds, or on all training tasks together."""

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

PER_TASK = 400  # examples at most of each task in the multi-task LoRA's data, so that large tasks do not dominate


@dataclass(frozen=True)
class TunedMethod:
    """A LoRA that is fine-tuned from a fresh start on the k examples, for a given wall time.

    Args:
        loaded: the loaded base model.
        recipe: the harvest recipe, of which rank, learning rate and clipping are used.
        seconds: the function that returns how long a task's LoRA is tuned, in seconds: a constant, or as long as
            generating the task's adapter takes.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        about_time: a text that says how the time is set, for the score's identity.
        uses: what the method knows of the task.
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
        return [self.recipe.model_dump(mode="json", exclude=self.recipe.later_defaults), self.about_time]

    def serve(self, context: TaskContext) -> Served:
        """Return the tuned adapter, with the number of steps that the time allowed and the last loss.

        Raises:
            UnavailableError: If the task has no training example.
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
    """One LoRA that is trained on the examples of all training tasks together.

    It is trained once and stored; a training that was stopped resumes.

    Args:
        loaded: the loaded base model.
        tasks: the training tasks.
        recipe: the harvest recipe by which it is trained, with the number of steps.
        folder: the folder in which multi-task adapters are stored.
        on_step: the function that is called with the number of steps done.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        uses: what the method knows of the task.
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
        """Return all that decides the training: the base, the tasks' data and the recipe."""
        return [
            self.loaded.base.weight_hash,
            str(self.loaded.dtype),
            PER_TASK,
            [[task.name, task.data_hash] for task in self.tasks],
            self.recipe.model_dump(
                mode="json", exclude={"save_every", "validate_on", "keep", "keep_every", *self.recipe.later_defaults}
            ),
            *self.loaded.base.encoding,
        ]

    def serve(self, context: TaskContext) -> Served:
        """Return the multi-task adapter, which is the same for every task; train it first if it is not stored.

        Raises:
            UnavailableError: If there is no training task.
        """
        if not self.tasks:
            raise UnavailableError("there is no training task to learn from")
        key = files.sha256_json(self.identity(context))[:12]
        target = self.folder / f"multi-task-{key}"
        if not (target / CONFIG).is_file():
            self._train(target, key)
        return Served(read_adapter(target), about={"steps": self.recipe.steps, "tasks": len(self.tasks)})

    def _train(self, target: Path, key: str) -> None:
        """Train the adapter and write it to the folder ``target``, where its training state is until then."""
        rows: list[Encoded] = []
        for task in self.tasks:
            rows += task_rows(self.loaded, task, task.examples("train")[:PER_TASK])
        state = target / "state.safetensors"
        with trainer_of(self.loaded, self.recipe) as trainer:
            finetune(trainer, rows, state=state, identity=key, on_step=lambda step, _: self.on_step(step))
            write_adapter(target, trainer.adapter(), self.loaded.shapes, revision=self.loaded.base.revision)
        state.unlink(missing_ok=True)
