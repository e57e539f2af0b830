"""Examples that are longer than what the base reads are refused before they are run, never cut or left out."""

from collections.abc import Sequence

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.registry.task_record import EXAMPLES, Task
from icmlora_cli.tasks.examples import Example

SHOWN = 60  # characters of an example in an error


def fits(loaded: LoadedBase, rows: Sequence[Encoded]) -> bool:
    """Tell whether the base reads each of the rows at once."""
    return all(row.length <= max_tokens(loaded) for row in rows)


def task_rows(loaded: LoadedBase, task: Task, examples: Sequence[Example]) -> list[Encoded]:
    """Render examples of a task as ``encode_task`` does, and check that the base reads each of them at once.

    Raises:
        UsageError: if it does not; it names the task, the longest example, and the lengths.
    """
    rows = encode_task(loaded.tokenizer, task, examples)
    check_fit(loaded, rows, task, examples)
    return rows


def check_fit(loaded: LoadedBase, rows: Sequence[Encoded], task: Task, examples: Sequence[Example]) -> None:
    """Check that the base reads each row of a task at once.

    Args:
        loaded: the base.
        rows: the examples, rendered.
        task: whose examples they are.
        examples: one a row, but for plain text, of which an example can have several rows.

    Raises:
        UsageError: if one is too long.
    """
    if fits(loaded, rows):
        return
    limit = max_tokens(loaded)
    count = sum(row.length > limit for row in rows)
    at = max(range(len(rows)), key=lambda index: rows[index].length)
    longest = ""
    if len(rows) == len(examples):
        text = task.template.split_by(examples[at])
        longest = f" ({(text[:SHOWN] + '...' if len(text) > SHOWN else text)!r})"
    what = "one example has" if count == 1 else f"{count:,} examples have up to"
    raise UsageError(
        f"task {task.name}: {what} {rows[at].length:,} tokens{longest}; the base reads {limit:,} at once",
        where=str(task.folder / EXAMPLES),
        hint="leave out or shorten what is too long and add the task again, or take a base that reads more",
    )
