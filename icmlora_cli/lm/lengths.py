"""Examples that are longer than what the base reads are refused before they are run, never left out.

They are cut only where the user says to how many tokens, and what is cut is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    rows = encode_task(loaded.family, task, examples)
    check_fit(loaded, rows, task, examples)
    return rows


@dataclass(frozen=True)
class CutRows:
    """Rows of which the long ones were cut.

    Args:
        rows: the rows, in order.
        cut: how many of them were cut.
        tokens: how many tokens they lost together.
        longest: the tokens of the longest row before.
    """

    rows: list[Encoded]
    cut: int
    tokens: int
    longest: int


def cut_rows(rows: Sequence[Encoded], max_length: int | None, *, keep_first: int | None) -> CutRows:
    """Cut rows to a length: the start of the prompt goes first, and the answer's end only where it alone is too long.

    Args:
        rows: the rows.
        max_length: the tokens of the longest row, at least 2; None cuts nothing.
        keep_first: a token, such as BOS, that stays where a prompt begins with it; None for none.
    """
    longest = max((row.length for row in rows), default=0)
    if max_length is None or longest <= max_length:
        return CutRows(list(rows), 0, 0, longest)
    done = [row if row.length <= max_length else _cut(row, max_length, keep_first) for row in rows]
    lost = [_tokens(before) - _tokens(after) for before, after in zip(rows, done, strict=True)]
    return CutRows(done, sum(map(bool, lost)), sum(lost), longest)


def _tokens(row: Encoded) -> int:
    return len(row.prompt_ids) + len(row.answer_ids)


def _cut(row: Encoded, max_length: int, keep_first: int | None) -> Encoded:
    answer = row.answer_ids[: max_length - 1]
    if row.apart:
        return replace(row, prompt_ids=row.prompt_ids[-max_length:], answer_ids=answer)
    room = max_length - len(answer)
    first = row.prompt_ids[:1] if room > 1 and row.prompt_ids[0] == keep_first else ()
    return Encoded((*first, *row.prompt_ids[len(row.prompt_ids) - room + len(first) :]), answer)


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
