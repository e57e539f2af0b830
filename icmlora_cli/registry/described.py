"""Tasks without examples, which come with an imported adapter and are known only by their description."""

import hashlib
import re
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import UsageError
from icmlora_cli.registry.task_record import QA, Task
from icmlora_cli.registry.tasks import Draft
from icmlora_cli.tasks.splits import DEFAULT_FRACTIONS, PARTS

LONGEST = 2000  # characters of a description at most, as in a task file
NAME_LENGTH = 48  # characters of a name at most


def name_of(description: str) -> str:
    """Return a task name made of a description's words: ``Say it in French.`` gives ``say_it_in_french``.

    Raises:
        UsageError: If the description has no letter or digit that a name can hold.
    """
    name = re.sub(r"[^a-z0-9]+", "_", description.lower()).strip("_")
    if len(name) > NAME_LENGTH:
        name = name[: NAME_LENGTH + 1].rpartition("_")[0] or name[:NAME_LENGTH]
    if not name:
        raise UsageError(f"no name can be made of {description[:60]!r}", hint="name the task too: --task NAME")
    return name


def described(name: str, description: str, *, licence: str | None, source: str | None) -> Draft:
    """Return a task without examples.

    Args:
        name: the task's name, already checked.
        description: the task in words.
        licence: the licence of the adapter that the task comes with; None if it is not known.
        source: where that adapter comes from; None if it is not known.

    Raises:
        UsageError: If the description is empty or too long.
    """
    text = " ".join(description.split())
    if not text or len(text) > LONGEST:
        raise UsageError(
            f"a description has 1 to {LONGEST} characters, and this one {len(text):,}",
            hint='--describe "what the adapter does"',
        )
    task = Task(
        name=name,
        descriptions=(text,),
        template=QA,
        metric="exact_match",
        split="train",
        licence=licence,
        source=source,
        family=None,
        data_hash=files.sha256_json([[], vars(QA)]),
        counts=dict.fromkeys(PARTS, 0),
        folder=Path(),
        splits=dict(DEFAULT_FRACTIONS),
        examples_sha256=hashlib.sha256(b"").hexdigest(),
    )
    return Draft(task, "")
