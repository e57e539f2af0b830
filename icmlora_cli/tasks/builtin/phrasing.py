"""Drawing one of very many descriptions of a task."""

import random

from icmlora_cli.tasks.builtin.catalog import builtin_names
from icmlora_cli.tasks.builtin.dense.every import WORDINGS
from icmlora_cli.tasks.builtin.grammar import compose
from icmlora_cli.tasks.builtin.types import BuiltinTask

CURATED_SHARE = 0.25
"""How often a curated task is said in one of its own descriptions."""


def phrase(task: BuiltinTask, rng: random.Random) -> str:
    """Compose one description of a task.

    Args:
        task: A task of the catalogue or of ``dense_tasks()``.
        rng: Makes the choices; the same state gives the same sentence.

    Returns:
        An order, a question or a terse note that names what distinguishes the task in its family; for a task of the
        catalogue sometimes one of its fixed descriptions. An unknown family raises ``KeyError``.
    """
    if rng.random() < CURATED_SHARE and task.name in builtin_names():
        return rng.choice(task.descriptions)
    return compose(WORDINGS[task.family](dict(task.axes)), rng)
