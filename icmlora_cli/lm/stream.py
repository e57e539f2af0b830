"""Decoding of one prompt, token by token: greedy or sampled, told piece by piece, stopped at any moment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from icmlora_cli.lm.load import LoadedBase

GREEDY_BELOW = 1e-5  # temperatures; dividing by them would overflow
CONTEXT = 16  # tokens of the prompt that an answer is decoded with
UNFINISHED = "\ufffd"  # what a character decodes to of which only some bytes are there

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn.

    Args:
        max_tokens: The most tokens that the answer may have.
        temperature: 0 is greedy.
        top_p: the share of probability that is drawn from.
        seed: The seed of the draws; None draws anew each time.
        stop: the answer ends before the first of these texts.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamedText:
    """An answer.

    Args:
        text: without special tokens, cut before the stop text.
        tokens: how many were made, the one that ended it among them.
        finish: ``stop``: by itself or at a stop text; ``length``; ``cancelled``.
    """

    text: str
    tokens: int
    finish: Finish


class Pieces:
    """Cuts a growing text into pieces that never have to be taken back.

    Args:
        stop: texts before which it ends: what may become one of them is held back.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        """Start with nothing sent."""
        self.stop = tuple(stop)
        self.sent = ""

    def cut(self, text: str) -> tuple[str, bool]:
        """Return the text up to the first stop text, and whether there was one."""
        ends = [at for at in (text.find(item) for item in self.stop) if at >= 0]
        return (text[: min(ends)], True) if ends else (text, False)

    def more(self, text: str, *, final: bool = False) -> str:
        """Return what may be told now.

        Args:
            text: all of it so far.
            final: it does not go on.
        """
        whole, stopped = self.cut(text)
        if not (final or stopped):
            whole = whole.rstrip(UNFINISHED)
            whole = whole[: len(whole) - self._held(whole)]
        if not whole.startswith(self.sent):
            return ""
        piece, self.sent = whole[len(self.sent) :], whole
        return piece

    def _held(self, text: str) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        lengths = (length for item in self.stop for length in range(1, len(item)) if text.endswith(item[:length]))
        return max(lengths, default=0)


class _Watch(StoppingCriteria):  # type: ignore[misc]  # transformers has no types here
    """Tells the text after each token, and ends it at a stop text or when it is cancelled."""

    def __init__(
        self,
        loaded: LoadedBase,
        prompt_ids: Sequence[int],
        pieces: Pieces,
        on_text: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self.tokenizer, self.prompt_ids = loaded.tokenizer, prompt_ids
        self.pieces, self.on_text, self.cancelled = pieces, on_text, cancelled

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """Return whether it is done, bool [1]."""
        text = text_after(self.tokenizer, self.prompt_ids, input_ids[0, len(self.prompt_ids) :].tolist())
        if piece := self.pieces.more(text):
            self.on_text(piece)
        return torch.tensor([self.pieces.cut(text)[1] or self.cancelled()], device=input_ids.device)


def text_after(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], ids: Sequence[int]) -> str:
    """Return what tokens add to the text of those before them, without special tokens.

    Decoded alone, the first of them would lose the space that it starts with (SentencePiece), and with that the
    indentation of code. The text grows with the tokens, but for replacement characters at its end, which stand for
    bytes that are no whole characters yet.

    Args:
        tokenizer: the base model's.
        before: the prompt's tokens, of which the last few are decoded too.
        ids: the tokens whose text is asked for.
    """

    def decoded(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    last, start = list[int](), ""
    for size in (CONTEXT, len(before)):  # a window that begins within a character spoils those after it too
        last = list(before[-size:]) if size else []
        start = decoded(last)
        if UNFINISHED not in start:
            break
    whole = decoded([*last, *ids])
    if not whole.startswith(start):
        start = start.rstrip(UNFINISHED)  # the prompt's last character ends in the new tokens
    return whole[len(start) :] if whole.startswith(start) else decoded(list(ids))


def end_tokens(loaded: LoadedBase) -> tuple[int, ...]:
    """Return the tokens that end an answer: the model's own, and the tokenizer's, which chat tasks are trained with."""
    own = loaded.model.generation_config.eos_token_id
    ids = [*(own if isinstance(own, list) else [own]), loaded.tokenizer.eos_token_id]
    return tuple(dict.fromkeys(int(item) for item in ids if item is not None))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the tokens that decoding leaves out, by their texts."""
    marked = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
    ids = list(dict.fromkeys([*tokenizer.all_special_ids, *marked]))
    return dict(zip(map(str, tokenizer.convert_ids_to_tokens(ids)), ids, strict=True))


def stop_tokens(loaded: LoadedBase, stop: Sequence[str]) -> tuple[int, ...]:
    """Return the special tokens among stop texts: the decoded text lacks them, so that it cannot be cut before them."""
    special = special_tokens(loaded.tokenizer) if stop else {}
    return tuple(special[text] for text in stop if text in special)


def write(
    loaded: LoadedBase,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    on_text: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> StreamedText:
    """Return what the model writes after a prompt.

    What the request does not say, such as a repetition penalty, is as the model's ``generation_config.json`` has it.

    Args:
        loaded: the base, with whatever is applied to it.
        prompt_ids: one token or more.
        sampling: how to draw; its seed is set for the whole process, so that only one may be drawing at a time.
        on_text: told of each piece of the text.
        cancelled: asked after each token.

    Raises:
        DeviceMemoryError: If the memory of the device does not suffice.
    """
    ids = torch.tensor([list(prompt_ids)], device=loaded.device)  # (1, T)
    ends, pieces = (*end_tokens(loaded), *stop_tokens(loaded, sampling.stop)), Pieces(sampling.stop)
    if sampling.seed is None:
        torch.seed()
    else:
        torch.manual_seed(sampling.seed)
    watch = _Watch(loaded, prompt_ids, pieces, on_text, cancelled)

    def made_ids(_: int) -> torch.Tensor:
        with torch.inference_mode():
            out: torch.Tensor = loaded.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=_config(loaded, sampling, ends),
                stopping_criteria=StoppingCriteriaList([watch]),
            )
        return out

    out = loaded.micro_batch.whole("writing", 1, made_ids)
    made = out[0, len(prompt_ids) :].tolist()
    text, stopped = pieces.cut(text_after(loaded.tokenizer, prompt_ids, made))
    if piece := pieces.more(text, final=True):
        on_text(piece)
    if stopped or (made and made[-1] in ends):
        return StreamedText(text, len(made), "stop")
    return StreamedText(text, len(made), "length" if len(made) >= sampling.max_tokens else "cancelled")


def _config(loaded: LoadedBase, sampling: Sampling, ends: Sequence[int]) -> GenerationConfig:
    pad = loaded.tokenizer.pad_token_id
    asked: dict[str, object] = {
        "max_new_tokens": sampling.max_tokens,
        "eos_token_id": list(ends),
        "pad_token_id": 0 if pad is None else int(pad),
    }
    if sampling.temperature < GREEDY_BELOW:
        return GenerationConfig(
            do_sample=False, temperature=1.0, top_p=1.0, top_k=50, **asked
        )  # of no effect, unwarned
    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(**asked, **drawn)
