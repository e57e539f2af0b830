"""Perplexity and bits per character of plain texts, over rolling windows as lm-evaluation-harness cuts them.

The windows are those of ``loglikelihood_rolling`` in EleutherAI's lm-evaluation-harness (``get_rolling_token_windows``
with ``context_len=1``, then ``make_disjoint_window``): each token is predicted once; the first window starts with the
prefix token, each later one with the last token before it, and the last one with as many as fit.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import IGNORED, scoring_batches
from icmlora_cli.lm.devices import upload
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import ids_after, prefix_token, text_ids

DEFAULT_LENGTH = 2048  # of a model whose configuration does not say how much it reads, as in lm-evaluation-harness


@dataclass(frozen=True)
class TextScore:
    r"""How well a text (or several, see ``aggregate``) is predicted.

    Args:
        nll: negative log-likelihood of the whole, nats.
        tokens: tokens scored: all of the text's own.
        characters: Unicode code points.
        bytes: The size of the text in UTF-8, in bytes.
        words: pieces between runs of white space, as lm-evaluation-harness counts them (``re.split(r"\s+", text)``).
    """

    nll: float
    tokens: int
    characters: int
    bytes: int
    words: int

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood of a token, nats."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        """Perplexity per token; it can be compared between models of the same tokenizer only."""
        return _exp(self.nats_per_token)

    @property
    def bits_per_character(self) -> float:
        """Bits per Unicode code point: independent of the tokenizer."""
        return self.nll / (self.characters * math.log(2))

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8 (lm-evaluation-harness' ``bits_per_byte``)."""
        return self.nll / (self.bytes * math.log(2))

    @property
    def word_perplexity(self) -> float:
        """Perplexity per word (lm-evaluation-harness' ``word_perplexity``)."""
        return _exp(self.nll / self.words)

    @property
    def byte_perplexity(self) -> float:
        """Perplexity per byte (lm-evaluation-harness' ``byte_perplexity``)."""
        return _exp(self.nll / self.bytes)


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:  # a "word" of a text without spaces can be thousands of nats
        return math.inf


def aggregate(scores: Sequence[TextScore]) -> TextScore:
    """Return the score of several texts as if they were one: sums, so that each token weighs the same.

    Raises:
        ValueError: if there is none.
    """
    if not scores:
        raise ValueError("no text was scored")
    return TextScore(
        nll=math.fsum(item.nll for item in scores),
        tokens=sum(item.tokens for item in scores),
        characters=sum(item.characters for item in scores),
        bytes=sum(item.bytes for item in scores),
        words=sum(item.words for item in scores),
    )


def max_tokens(loaded: LoadedBase) -> int:
    """Return how many tokens the base reads at once, as lm-evaluation-harness finds it out."""
    config = loaded.model.config.get_text_config()
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    return DEFAULT_LENGTH


@dataclass(frozen=True)
class _Window:
    """A forward pass: what is read, and the tokens at its end that are predicted."""

    text: int
    context: tuple[int, ...]
    predicted: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens that the model reads: the last predicted one is not among them."""
        return len(self.context) + len(self.predicted) - 1


def rolling_windows(ids: Sequence[int], size: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut a text into disjoint pieces, each with what is read before it.

    Args:
        ids: the text's tokens.
        size: tokens that are read at most, the prefix token among them.

    Yields:
        The text's own tokens before a piece (none before the first, whose context is the prefix token alone), and
        the piece; ``len(context) + len(piece) - 1`` is at most ``size``.
    """
    yield (), tuple(ids[:size])
    for start in range(size, len(ids), size):
        end = min(start + size, len(ids))
        yield tuple(ids[end - size - 1 : start]), tuple(ids[start:end])


def score_texts(
    loaded: LoadedBase,
    texts: Sequence[str],
    *,
    prefix: str = "",
    max_length: int | None = None,
    batch_size: int = 4,
) -> tuple[TextScore, ...]:
    """Score every token of each text.

    Without ``prefix``, the log-likelihoods are those of lm-evaluation-harness' ``loglikelihood_rolling`` with
    ``add_bos_token=False``: the first token is predicted from the prefix token (BOS, or EOS where there is no BOS).

    Args:
        loaded: the base, with whatever is merged into it.
        texts: what to score; none of them empty.
        prefix: a description or passages, with what separates them from the text. Its tokens stand before each
            window (after the prefix token in the first) and are not scored; the windows shrink by as much.
        max_length: tokens that the model reads at once; by default as many as the model was made for.
        batch_size: windows a forward pass.

    Returns:
        A score for each text, in order.

    Raises:
        UsageError: if the base has an encoder, a text is empty, or the prefix leaves no room for a text.
    """
    if not texts:
        return ()
    loaded.family.check_passages()
    limit = max_length or max_tokens(loaded)
    told = tuple(text_ids(loaded.tokenizer, prefix)) if prefix else ()
    size = limit - len(told)
    if size < 2:
        raise UsageError(
            f"what stands before each text has {len(told):,} tokens; the model reads {limit:,} at once",
            hint="show fewer or shorter passages",
        )
    first = (prefix_token(loaded.tokenizer), *told)
    encoded = [ids_after(loaded.tokenizer, prefix[-1:], text) for text in texts]
    windows: list[_Window] = []
    for index, ids in enumerate(encoded):
        if not ids:
            raise UsageError(f"text {index + 1} of {len(texts)} is empty, so that there is nothing to score")
        for context, piece in rolling_windows(ids, size):
            windows.append(_Window(index, (*told, *context) if context else first, piece))
    nll = [0.0] * len(texts)
    for indices in scoring_batches([window.length for window in windows], batch_size=batch_size):
        batch = [windows[at] for at in indices]
        for part, values in loaded.micro_batch.parts("passages", batch, lambda part: _nll(loaded, part)):
            for window, value in zip(part, values, strict=True):
                nll[window.text] += value
    return tuple(
        TextScore(value, len(ids), len(text), len(text.encode("utf-8")), len(re.split(r"\s+", text)))
        for text, ids, value in zip(texts, encoded, nll, strict=True)
    )


def _nll(loaded: LoadedBase, windows: Sequence[_Window]) -> list[float]:
    """Return each window's negative log-likelihood, nats; padded on the left, so that all windows end together."""
    longest = max(window.length for window in windows)
    count = max(len(window.predicted) for window in windows)
    ids = torch.full((len(windows), longest), loaded.tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros(len(windows), longest, dtype=torch.long)
    labels = torch.full((len(windows), count), IGNORED, dtype=torch.long)
    for row, window in enumerate(windows):
        ids[row, longest - window.length :] = torch.tensor((*window.context, *window.predicted)[:-1])
        mask[row, longest - window.length :] = 1
        labels[row, count - len(window.predicted) :] = torch.tensor(window.predicted)
    with torch.inference_mode():
        logits = loaded.model(
            input_ids=upload(ids, loaded.device),
            attention_mask=upload(mask, loaded.device),
            position_ids=upload((mask.cumsum(1) - 1).clamp(min=0), loaded.device),
            use_cache=False,
            logits_to_keep=count,
        ).logits  # (windows, count, vocabulary)
        # row by row: a softmax of the whole batch would double the largest tensor that there is
        rows = [
            torch.nn.functional.cross_entropy(row.float(), label, ignore_index=IGNORED, reduction="none")
            for row, label in zip(logits, upload(labels, loaded.device), strict=True)
        ]
        sums: list[float] = torch.stack(rows).cpu().double().sum(1).tolist()  # MPS has no float64
        return sums
