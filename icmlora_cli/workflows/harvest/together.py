"""Several tasks in each pass through the base: how many fit, and one of those that are under way."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.lm.architectures import is_encoder_decoder
from icmlora_cli.lm.checkpointing import checkpointed
from icmlora_cli.lm.cost import meta_base, meta_rows, training_cost
from icmlora_cli.lm.devices import free_memory
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.task_training import TaskTraining
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.provenance.energy import ShareMeter
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows.harvest.task_harvest import TaskHarvest

MOST = 16  # tasks in a pass: beyond, a GPU has enough to do, and more of the rows are padding
SPARE = 0.8  # share of the free memory that passes may take


def fitting_tasks(loaded: LoadedBase, recipe: HarvestRecipe, tasks: Sequence[Task], free: int | None = None) -> int:
    """Return how many tasks may share a pass: as many as the memory holds, and 1 where that would win nothing.

    Args:
        loaded: The base.
        recipe: How to train.
        tasks: The tasks, whose longest rows count.
        free: The bytes that are free on the device; None asks the device. Where it does not say, as a CPU, it is 1.
    """
    free = free_memory(loaded.device) if free is None else free
    if free is None or recipe.packing or is_encoder_decoder(loaded.model.config):
        return 1
    rows = [
        row
        for task in tasks
        for row in encode_task(loaded.family, task, task.examples("train"), max_length=recipe.max_length)
    ]
    limit = recipe.max_length or max_tokens(loaded)
    answer = min(max(len(row.answer_ids) for row in rows), limit - 1)
    tokens = max(answer + 1, min(max(row.length for row in rows), limit))
    paper = meta_base(loaded.base.path, loaded.base.name, dtype=loaded.dtype)
    count = min(recipe.micro_batch or recipe.batch_size, recipe.batch_size)
    with trainer_of(paper, recipe) as trainer, checkpointed(paper.model, on=recipe.gradient_checkpointing):
        cost = training_cost(trainer.model, meta_rows(paper, rows=count, tokens=tokens, answer=answer))
        numbers = sum(item.numel() for item in trainer.parameters.values())
    return max(1, min(MOST, int(SPARE * free) // (cost.activations + cost.gradients + 12 * numbers)))


@dataclass(frozen=True)
class Running:
    """A task that is being trained beside others.

    Args:
        task: The task.
        harvest: Its harvest.
        training: Its training.
        stack: What is let go of when it ends: its lease.
    """

    task: Task
    harvest: TaskHarvest
    training: TaskTraining
    stack: ExitStack

    def share(self, cost: Mapping[str, float], part: float) -> None:
        """Count a part of what a step has taken as this task's."""
        meter = self.harvest.meter
        assert isinstance(meter, ShareMeter)
        meter.add(cost, part)

    def leave(self) -> None:
        """Release the lease."""
        self.stack.close()
