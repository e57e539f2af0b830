"""Examples as token ids: the prompt that the model reads and the answer that it must give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

from icmlora_cli.errors import UsageError
from icmlora_cli.registry.task_record import PromptTemplate, Task
from icmlora_cli.tasks.examples import Example, Picture

# A row of plain text in training has at most so many tokens: as many as a passage of about 1,000 characters of English,
# and few enough that a batch of 12 fits a small machine's memory.
WINDOW = 256


@dataclass(frozen=True)
class Encoded:
    """One example as token ids.

    Args:
        prompt_ids: what is given, with the tokenizer's special tokens.
        answer_ids: what is scored and learned, with whatever ends the answer.
        apart: whether an encoder reads the prompt and a decoder the answer.
        picture: the image that the prompt has places for; None without one.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    apart: bool = False
    picture: Picture | None = None

    @property
    def content(self) -> list[object]:
        """What decides what a base says of it, for keys of caches."""
        return [self.prompt_ids, self.answer_ids, *([] if self.picture is None else [self.picture.sha256])]

    @property
    def length(self) -> int:
        """The tokens of the longest sequence that is read: of both, or of the longer one where they are apart."""
        if self.apart:
            return max(len(self.prompt_ids), len(self.answer_ids) + 1)  # a decoder starts with a token before its first
        return len(self.prompt_ids) + len(self.answer_ids)


class RowCoder(Protocol):
    """Writes prompts and answers as the token ids that a base reads."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer."""

    def row(self, prompt: str, answer: str, picture: Picture | None = None) -> Encoded:
        """Return a prompt, perhaps about an image, and its answer as token ids.

        Raises:
            UsageError: if there is an image, and the base reads none or cannot read this one.
        """

    def chat_row(self, turns: Sequence[Mapping[str, str]], answer: str) -> Encoded:
        """Return a conversation, each turn with its ``role`` and ``content``, and the answer to it as token ids."""

    def check_passages(self) -> None:
        """Check that the base reads plain text without a prompt.

        Raises:
            UsageError: if it has an encoder, which reads a prompt.
        """


@dataclass(frozen=True)
class DecoderCoder:
    """Writes rows for a decoder alone, which reads prompt and answer as one sequence.

    Args:
        tokenizer: the base's tokenizer.
    """

    tokenizer: PreTrainedTokenizerBase

    def row(self, prompt: str, answer: str, picture: Picture | None = None) -> Encoded:
        """Return a prompt and its answer as token ids.

        Raises:
            UsageError: if there is an image.
        """
        if picture is not None:
            raise no_images()
        return Encoded(tuple(open_ids(self.tokenizer, prompt)), tuple(ids_after(self.tokenizer, prompt, answer)))

    def chat_row(self, turns: Sequence[Mapping[str, str]], answer: str) -> Encoded:
        """Return a conversation and the answer to it as token ids, by the base's own chat template."""
        text = str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        answer_ids = ids_after(self.tokenizer, text, answer + chat_end(self.tokenizer))
        return Encoded(tuple(text_ids(self.tokenizer, text)), tuple(answer_ids))

    def check_passages(self) -> None:
        """Do nothing: a decoder reads plain text."""


def no_images() -> UsageError:
    """Return the error for an example with an image and a base that reads text alone."""
    return UsageError(
        "an example has an image, and this base reads text alone",
        hint="--base with one that reads images, such as florence-community/Florence-2-base-ft",
    )


def encode(
    coder: RowCoder,
    template: PromptTemplate,
    example: Example,
    *,
    description: str | None = None,
) -> Encoded:
    """Render one example.

    Args:
        coder: writes rows as the base reads them.
        template: how the task writes a prompt and its answer.
        example: what to write.
        description: put this before the prompt (the ``described`` protocol); None leaves the prompt bare.

    Raises:
        UsageError: if the example has an image that the base cannot read, or the base has no chat template.
    """
    prompt, answer = template.render(example, description=description)
    if template.kind == "chat" and example.picture is None:
        return coder.chat_row([{"role": "user", "content": prompt}], answer)
    return coder.row(prompt, answer, example.picture)


def chat_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what ends an answer in a chat: the EOS token, or a line's end where there is none."""
    return str(tokenizer.eos_token or "\n")


def open_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text that is to be gone on with: special ones before it, none after it."""
    ids = list(tokenizer.encode(text, add_special_tokens=True, verbose=False))
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    return ids[:-1] if len(ids) > 1 and ids[-1] in ends else ids


def ids_after(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> list[int]:
    """Return the tokens that a text has when it stands after another one.

    Both are encoded as one text, and the tokens of the first are cut off: a tokenizer of SentencePiece's kind puts a
    space before all that it encodes, which a text that goes on with another does not have. What is before counts as
    encoded alone, as it is when the model goes on with it. Where a token spans the boundary, such as ``" Paris"`` after
    a prompt that ends with a space, the tokens of the first text are not those that the whole starts with; the second
    text is then encoded after the last character that is no white space, or after a line's end, and alone where these
    too grow into it. Byte-level BPE puts nothing before a text, which is therefore encoded alone.

    Args:
        tokenizer: the base model's.
        before: what the text goes on with.
        text: what is encoded, without special tokens.
    """
    alone = text_ids(tokenizer, text)
    if not before or _adds_nothing(tokenizer):
        return alone
    for start in (before, before.rstrip()[-1:], "\n"):
        first, whole = text_ids(tokenizer, start), text_ids(tokenizer, start + text)
        if first and whole[: len(first)] == first:
            return whole[len(first) :]
    return alone


def _adds_nothing(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether this is byte-level BPE that puts no space before a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, ByteLevel):
        return False
    return text_ids(tokenizer, "\na")[1:] == text_ids(tokenizer, "a")


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of plain text, without special ones; a long text is no reason for a warning."""
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that plain text starts after: BOS, or EOS where there is none.

    It is lm-evaluation-harness' ``HFLM.prefix_token_id``.

    Raises:
        UsageError: if the tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise UsageError(
        "the base's tokenizer has neither a BOS nor an EOS token, so that plain text cannot be scored",
        hint="use another base model for tasks with template: text",
    )


def encode_text(
    coder: RowCoder, text: str, *, description: str | None = None, max_length: int | None = None
) -> list[Encoded]:
    """Cut plain text into rows of at most ``WINDOW`` tokens, each after the prefix token; all of them are learned.

    Args:
        coder: writes rows as the base reads them.
        text: a passage.
        description: put this before each row, on a line of its own and followed by an empty one; None puts nothing.
        max_length: the tokens of the longest row in all, in place of ``WINDOW`` tokens of the text.

    Raises:
        UsageError: if what stands before each row leaves no room in ``max_length``, or the base has an encoder.
    """
    coder.check_passages()
    tokenizer = coder.tokenizer
    before = f"{description}\n\n" if description else ""
    prompt = [prefix_token(tokenizer), *(text_ids(tokenizer, before) if before else [])]
    ids = ids_after(tokenizer, before, text)
    window = WINDOW if max_length is None else max_length - len(prompt)
    if window < 1:
        raise UsageError(
            f"max_length: {max_length}: what stands before each row of text has {len(prompt):,} tokens",
            hint=f"max_length: {len(prompt) + WINDOW} in the harvest recipe",
        )
    return [Encoded(tuple(prompt), tuple(ids[start : start + window])) for start in range(0, len(ids), window)]


def encode_task(
    coder: RowCoder,
    task: Task,
    examples: Sequence[Example],
    *,
    described: bool = False,
    max_length: int | None = None,
) -> list[Encoded]:
    """Render examples of a task, in order: one row an example, or, of plain text, one a window (see ``encode_text``).

    Args:
        coder: writes rows as the base reads them.
        task: whose template is used.
        examples: what to write.
        described: put the task's first description in the prompt; a template that asks for it has it always.
        max_length: the tokens of the longest row of plain text; rows of other tasks are not cut here.

    Raises:
        UsageError: if what stands before each row of plain text leaves no room in ``max_length``, or the base cannot
            read a row.
    """
    told = described or "{description}" in task.template.prompt
    description = task.descriptions[0] if told else None
    if task.template.kind == "text":
        return [
            row
            for item in examples
            for row in encode_text(coder, item.output, description=description, max_length=max_length)
        ]
    return [encode(coder, task.template, example, description=description) for example in examples]
