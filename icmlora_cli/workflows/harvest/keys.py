"""The keys of harvests: what decides what an adapter is, as a hash."""

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk import files
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task

VERSION = 1  # of the training procedure; part of every key


def harvest_key(base: Base, task: Task, recipe: HarvestRecipe) -> str:
    """Return the hash of all that decides a task's harvest: base weights, task data and recipe.

    What was harvested before the procedure was mended keeps its key where the mend makes no difference to it.
    """
    values = recipe.decisive()
    return files.sha256_json([VERSION, base.weight_hash, task.data_hash, values, *_mended(base, task, recipe)])[:12]


def _mended(base: Base, task: Task, recipe: HarvestRecipe) -> list[str]:
    """Return the mends of the procedure without which this harvest would be worse.

    Until the first one, the longest of fewer than eight batches of examples were never trained on unless all batches
    were whole. Until the second, only byte-level tokenizers gave an answer the tokens that it has after its prompt.
    """
    count, windows = task.counts["train"], task.template.kind == "text"
    dropped = recipe.batch_size < count < 8 * recipe.batch_size and count % recipe.batch_size
    mends = ["every example"] if dropped or (windows and count < 8 * recipe.batch_size) else []
    return [*mends, *base.encoding]
