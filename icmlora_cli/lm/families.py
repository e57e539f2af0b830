"""How a base reads a row: a decoder alone reads prompt and answer as one sequence, an encoder-decoder apart.

This is the one place that tells bases apart: it writes rows as token ids, batches them, prepares prompts for
``generate``, and reads the states that task vectors are made of.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from icmlora_cli.errors import CorruptFileError, UsageError
from icmlora_cli.lm.architectures import is_encoder_decoder
from icmlora_cli.lm.batching import IGNORED, PairBatch, RowBatch, TokenBatch, collate
from icmlora_cli.lm.devices import upload
from icmlora_cli.lm.prompts import DecoderCoder, Encoded, RowCoder, no_images, text_ids
from icmlora_cli.lm.stream import text_after
from icmlora_cli.tasks.examples import Picture


@dataclass(frozen=True)
class OpenPrompts:
    """Prompts that a model goes on with.

    Args:
        inputs: the arguments of ``generate``.
        width: how many tokens of what it returns stand before each answer.
        before: the tokens of each row that its answer is decoded after.
        start: the token that the decoder of an encoder-decoder starts with; None for a decoder alone.
    """

    inputs: Mapping[str, torch.Tensor]
    width: int
    before: tuple[tuple[int, ...], ...]
    start: int | None = None


class Family(RowCoder, Protocol):
    """How a base reads rows."""

    @property
    def task_type(self) -> str:
        """What PEFT calls the task of an adapter of such a base."""

    @property
    def closing(self) -> tuple[int, ...]:
        """The tokens that end a prompt as the base reads it."""

    def last(self, prompt_ids: Sequence[int]) -> int:
        """Return the index, among the states of a prompt, of the one that the answer's first token comes from."""

    def place(self, share: float) -> object:
        """Return which states are read at a share of the depth, for keys of caches."""

    def collate(self, rows: Sequence[Encoded], device: torch.device, *, size: Callable[[int], int] = int) -> RowBatch:
        """Pad a few rows into one batch.

        Args:
            rows: the rows.
            device: where the tensors are put.
            size: gives the size of the batch for the longest row and the longest answer, where it is to be larger.
        """

    def prompts(self, rows: Sequence[Encoded], device: torch.device) -> OpenPrompts:
        """Return the prompts of a few rows as ``generate`` takes them."""

    def written(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Return the text of the tokens that a model wrote.

        Args:
            before: the tokens that they are decoded after.
            ids: the tokens.
        """

    def states(self, rows: Sequence[Encoded], device: torch.device, share: float) -> list[torch.Tensor]:
        """Return the hidden states of rows without gradients, [T, hidden] each, in the dtype of the model.

        Args:
            rows: the rows; their answers are read too.
            device: where the model reads tokens.
            share: the depth at which they are read, as a share of all layers.
        """


class _CaughtError(Exception):
    """Ends a forward pass whose wanted state has been seen."""


@dataclass(frozen=True)
class DecoderFamily(DecoderCoder):
    """A decoder alone. The states of a row are those of all its tokens.

    Args:
        tokenizer: the base's tokenizer.
        model: the base.
    """

    model: PreTrainedModel
    task_type: str = "CAUSAL_LM"
    closing: tuple[int, ...] = ()

    def last(self, prompt_ids: Sequence[int]) -> int:
        """Return the index of the last token."""
        return len(prompt_ids) - 1

    @property
    def _depth(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    def place(self, share: float) -> int:
        """Return the index of the hidden state that is read (0 are the embeddings)."""
        return max(1, min(self._depth, round(share * self._depth)))

    def collate(self, rows: Sequence[Encoded], device: torch.device, *, size: Callable[[int], int] = int) -> RowBatch:
        """Pad a few rows on the left."""
        return collate(rows, int(self.tokenizer.pad_token_id), device, size=size)

    def prompts(self, rows: Sequence[Encoded], device: torch.device) -> OpenPrompts:
        """Pad a few prompts on the left."""
        width = max(len(row.prompt_ids) for row in rows)
        ids = torch.full((len(rows), width), int(self.tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, width - len(row.prompt_ids) :] = torch.tensor(row.prompt_ids)
            mask[at, width - len(row.prompt_ids) :] = 1
        inputs = {"input_ids": upload(ids, device), "attention_mask": upload(mask, device)}
        return OpenPrompts(inputs, width, tuple(row.prompt_ids for row in rows))

    def written(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Return what tokens add to the text of those before them, without special tokens."""
        return text_after(self.tokenizer, before, ids)

    def states(self, rows: Sequence[Encoded], device: torch.device, share: float) -> list[torch.Tensor]:
        """Return the states of all tokens of each row."""
        whole = [Encoded(row.prompt_ids + row.answer_ids, ()) for row in rows]
        with torch.inference_mode():
            batch = collate(whole, int(self.tokenizer.pad_token_id), device)
            states = self._hidden(batch, self.place(share))
        return [states[index, states.shape[1] - row.length :] for index, row in enumerate(whole)]

    def _hidden(self, batch: TokenBatch, layer: int) -> torch.Tensor:
        """Return the layer's states [B, T, hidden]; where the blocks are found, those above it are not run."""
        lists = (item for item in self.model.modules() if isinstance(item, torch.nn.ModuleList))
        blocks, caught = next((item for item in lists if len(item) == self._depth), None), list[torch.Tensor]()
        arguments = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "position_ids": batch.position_ids,
            "use_cache": False,
            "logits_to_keep": 1,
        }
        if blocks is None or layer >= self._depth:  # the last state has a norm on it, which is no block
            states: torch.Tensor = self.model(**arguments, output_hidden_states=True).hidden_states[layer]
            return states

        def catch(_: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _CaughtError

        handle = blocks[layer].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            self.model(**arguments)
        except _CaughtError:
            pass
        finally:
            handle.remove()
        return caught[0]


@dataclass(frozen=True)
class EncoderDecoderFamily:
    """An encoder that reads the prompt, and a decoder that writes the answer after its start tokens.

    The states of a row are those of the encoder at all tokens of the prompt, and after them one of the decoder: at the
    last position of what it reads, which is its start tokens and the answer.

    Args:
        tokenizer: the base's tokenizer.
        model: the base.
    """

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    task_type: str = "SEQ_2_SEQ_LM"

    @cached_property
    def _marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before and after a text."""
        marks = list(self.tokenizer.encode("", add_special_tokens=True))
        ends = {self.tokenizer.eos_token_id, self.tokenizer.sep_token_id} - {None}
        return tuple(item for item in marks if item not in ends), tuple(item for item in marks if item in ends)

    @property
    def closing(self) -> tuple[int, ...]:
        """The tokens that end a prompt, and an answer."""
        end = self.tokenizer.eos_token_id
        return self._marks[1] or (() if end is None else (int(end),))

    @cached_property
    def start(self) -> tuple[int, ...]:
        """The tokens that the decoder starts with: its own, and the one that the tokenizer puts before a text.

        Raises:
            CorruptFileError: if the base's configuration names none.
        """
        config = self.model.config
        for holder in (config, config.get_text_config(), self.model.generation_config):
            first = getattr(holder, "decoder_start_token_id", None)
            if first is not None:
                return (int(first), *(item for item in self._marks[0] if item != first))
        raise CorruptFileError(
            f"the base {config.name_or_path} does not say which token its decoder starts with",
            hint="name decoder_start_token_id in its config.json",
        )

    def row(self, prompt: str, answer: str, picture: Picture | None = None) -> Encoded:
        """Return a prompt for the encoder and its answer for the decoder, without white space around the answer.

        Raises:
            UsageError: if there is an image.
        """
        if picture is not None:
            raise no_images()
        ids = self.tokenizer.encode(prompt, add_special_tokens=True, verbose=False)
        prompt_ids = (*ids, *(() if self._marks[1] else self.closing))
        return Encoded(tuple(prompt_ids), (*text_ids(self.tokenizer, answer.strip()), *self.closing), apart=True)

    def chat_row(self, turns: Sequence[Mapping[str, str]], answer: str) -> Encoded:
        """Refuse a conversation.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "template: chat needs a base with a chat template, and this one reads its prompts with an encoder",
            hint="template: qa, or a prompt and an answer, in the task file",
        )

    def check_passages(self) -> None:
        """Refuse plain text.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "plain text (template: text) needs a base that is a decoder alone: this one reads a prompt with an encoder",
            hint="another --base, or examples with an input and an output",
        )

    def last(self, prompt_ids: Sequence[int]) -> int:
        """Return the index of the decoder's state, which comes after the prompt's."""
        return len(prompt_ids)

    def place(self, share: float) -> list[object]:
        """Return the share itself: encoder and decoder may differ in depth."""
        return ["encoder, decoder", share]

    def _inputs(self, rows: Sequence[Encoded], device: torch.device, longest: int) -> dict[str, torch.Tensor]:
        ids = torch.full((len(rows), longest), int(self.tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row.prompt_ids)] = torch.tensor(row.prompt_ids)
            mask[at, : len(row.prompt_ids)] = 1
        return {"input_ids": upload(ids, device), "attention_mask": upload(mask, device)}

    def collate(self, rows: Sequence[Encoded], device: torch.device, *, size: Callable[[int], int] = int) -> PairBatch:
        """Pad prompts and answers on the right."""
        longest, most = size(max(len(row.prompt_ids) for row in rows)), max(len(row.answer_ids) for row in rows)
        count, start = size(most) if most else 0, len(self.start)
        given = torch.full((len(rows), start + max(count, 1) - 1), int(self.tokenizer.pad_token_id), dtype=torch.long)
        given[:, :start] = torch.tensor(self.start)
        labels = torch.full((len(rows), count), IGNORED, dtype=torch.long)
        for at, row in enumerate(rows):
            answer = torch.tensor(row.answer_ids, dtype=torch.long)
            labels[at, : len(answer)] = answer
            given[at, start : start + len(answer[:-1])] = answer[:-1]
        inputs = self._inputs(rows, device, longest) | {"decoder_input_ids": upload(given, device)}
        return PairBatch(inputs, upload(labels, device))

    def prompts(self, rows: Sequence[Encoded], device: torch.device) -> OpenPrompts:
        """Pad a few prompts on the right; each answer starts with the decoder's start tokens."""
        starts = torch.tensor([self.start] * len(rows))
        inputs = self._inputs(rows, device, max(len(row.prompt_ids) for row in rows))
        inputs |= {"decoder_input_ids": upload(starts, device)}
        return OpenPrompts(inputs, len(self.start), ((),) * len(rows), self.start[0])

    def written(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Return what tokens say, without special ones."""
        return text_after(self.tokenizer, before, ids)

    def states(self, rows: Sequence[Encoded], device: torch.device, share: float) -> list[torch.Tensor]:
        """Return the encoder's states at each prompt's tokens, and after them the decoder's at its last position."""
        pad = int(self.tokenizer.pad_token_id)  # so that the decoder reads the whole answer, its last token too
        batch = self.collate([replace(row, answer_ids=(*row.answer_ids, pad)) for row in rows], device)
        with torch.inference_mode():
            out = self.model(**batch.inputs, use_cache=False, output_hidden_states=True)
        encoder, decoder = (_at(layers, share) for layers in (out.encoder_hidden_states, out.decoder_hidden_states))
        last = [len(self.start) + len(row.answer_ids) - 1 for row in rows]
        return [
            torch.cat([encoder[at, : len(row.prompt_ids)], decoder[at, last[at], None]]) for at, row in enumerate(rows)
        ]


def _at(layers: Sequence[torch.Tensor], share: float) -> torch.Tensor:
    """Return the states at a share of the depth, never the embeddings, which are the first."""
    depth = len(layers) - 1
    return layers[max(1, min(depth, round(share * depth)))]


def family_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Family:
    """Return how a base reads rows.

    Args:
        model: the base.
        tokenizer: its tokenizer.
    """
    if is_encoder_decoder(model.config):
        return EncoderDecoderFamily(tokenizer, model)
    return DecoderFamily(tokenizer, model)
