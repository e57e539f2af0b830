"""Examples in the prompt: k answered questions before the open one."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.registry.task_record import Task
from icmlora_cli.tasks.examples import Example


def encode_with_shots(
    tokenizer: PreTrainedTokenizerBase,
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
        tokenizer: the base model's.
        task: whose template is used.
        examples: what to write.
        shots: what is shown before; none leaves the plain prompt.
        described: put the task's first description at the top.
    """
    bare = encode_task(tokenizer, task, examples, described=described and not shots)
    if not shots:
        return bare
    prompts = _chats if task.template.kind == "chat" else _texts
    told = described or "{description}" in task.template.prompt
    description = task.descriptions[0] if told else None
    rows = prompts(tokenizer, task, examples, shots, description)
    return [Encoded(tuple(ids), row.answer_ids) for ids, row in zip(rows, bare, strict=True)]


def _texts(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example],
    description: str | None,
) -> list[list[int]]:
    first = ["".join(task.template.render(shot, description=description)) for shot in shots[:1]]
    shown = "".join([*first, *("".join(task.template.render(shot)) for shot in shots[1:])])
    start = list(tokenizer.encode("", add_special_tokens=True))[:1]
    start = start if start and start[0] == tokenizer.bos_token_id else []
    return [
        start + list(tokenizer.encode(shown + task.template.render(example)[0], add_special_tokens=False))
        for example in examples
    ]


def _chats(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example],
    description: str | None,
) -> list[list[int]]:
    turns: list[dict[str, str]] = []
    for index, shot in enumerate(shots):
        prompt, answer = task.template.render(shot, description=description if index == 0 else None)
        turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    rows = []
    for example in examples:
        asked = [*turns, {"role": "user", "content": task.template.render(example)[0]}]
        text = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        rows.append(list(tokenizer.encode(text, add_special_tokens=False)))
    return rows
