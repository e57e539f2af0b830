"""Examples in the prompt: k answered questions before the open one."""

from collections.abc import Sequence

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.prompts import Encoded, RowCoder, encode_task
from icmlora_cli.registry.task_record import Task
from icmlora_cli.tasks.examples import Example, have_pictures


def encode_with_shots(
    coder: RowCoder,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example],
    *,
    described: bool = False,
) -> list[Encoded]:
    """Render examples of a task, each after the same answered ones.

    Each shot is written by the task's own template; with a chat template it is a turn of user and assistant. The
    description, where it is asked for, stands once, at the top.

    Args:
        coder: writes rows as the base reads them.
        task: whose template is used.
        examples: what to write.
        shots: what is shown before; none leaves the plain prompt.
        described: put the task's first description at the top.

    Raises:
        UsageError: if there are shots and images.
    """
    if shots and have_pictures((*shots, *examples)):
        raise UsageError(
            f"task {task.name}: a prompt has one image, so that no answered examples can stand before it",
            hint="leave the method in-context out",
        )
    if not shots:
        return encode_task(coder, task, examples, described=described)
    told = described or "{description}" in task.template.prompt
    description = task.descriptions[0] if told else None
    if task.template.kind == "chat":
        return _chats(coder, task, examples, shots, description)
    return _texts(coder, task, examples, shots, description)


def _texts(
    coder: RowCoder,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example],
    description: str | None,
) -> list[Encoded]:
    first = ["".join(task.template.render(shot, description=description)) for shot in shots[:1]]
    shown = "".join([*first, *("".join(task.template.render(shot)) for shot in shots[1:])])
    rows = []
    for example in examples:
        prompt, answer = task.template.render(example)
        rows.append(coder.row(shown + prompt, answer))
    return rows


def _chats(
    coder: RowCoder,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example],
    description: str | None,
) -> list[Encoded]:
    turns: list[dict[str, str]] = []
    for index, shot in enumerate(shots):
        prompt, answer = task.template.render(shot, description=description if index == 0 else None)
        turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    rows = []
    for example in examples:
        prompt, answer = task.template.render(example)
        rows.append(coder.chat_row([*turns, {"role": "user", "content": prompt}], answer))
    return rows
