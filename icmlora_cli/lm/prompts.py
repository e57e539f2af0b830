"""Examples as token ids: the prompt that the model reads and the answer that it must give."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from icmlora_cli.registry.examples import Example
from icmlora_cli.registry.task_record import PromptTemplate, Task


@dataclass(frozen=True)
class Encoded:
    """One example as token ids.

    Args:
        prompt_ids: what is given, with the tokenizer's special tokens.
        answer_ids: what is scored and learned, with whatever ends the answer.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt_ids) + len(self.answer_ids)


def _chat(tokenizer: PreTrainedTokenizerBase, content: str) -> str:
    messages = [{"role": "user", "content": content}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def encode(
    tokenizer: PreTrainedTokenizerBase,
    template: PromptTemplate,
    example: Example,
    *,
    description: str | None = None,
) -> Encoded:
    """Render one example.

    Args:
        tokenizer: the base model's.
        template: how the task writes a prompt and its answer.
        example: what to write.
        description: put this before the prompt (the ``described`` protocol); None leaves the prompt bare.
    """
    prompt, answer = template.render(example, description=description)
    if template.kind == "chat":
        prompt_ids = tokenizer.encode(_chat(tokenizer, prompt), add_special_tokens=False)
        answer += str(tokenizer.eos_token or "\n")
    else:
        prompt_ids = tokenizer.encode(prompt, add_special_tokens=True)
        prompt_ids = _without_end(tokenizer, prompt_ids)
    return Encoded(tuple(prompt_ids), tuple(tokenizer.encode(answer, add_special_tokens=False)))


def _without_end(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    return ids[:-1] if len(ids) > 1 and ids[-1] in ends else ids


def encode_task(
    tokenizer: PreTrainedTokenizerBase, task: Task, examples: Sequence[Example], *, described: bool = False
) -> list[Encoded]:
    """Render examples of a task, in order.

    Args:
        tokenizer: the base model's.
        task: whose template is used.
        examples: what to write.
        described: put the task's first description in the prompt; a template that asks for it has it always.
    """
    told = described or "{description}" in task.template.prompt
    description = task.descriptions[0] if told else None
    return [encode(tokenizer, task.template, example, description=description) for example in examples]
