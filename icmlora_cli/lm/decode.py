"""Greedy decoding of answers, in batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from icmlora_cli.lm.batching import scoring_batches
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.stream import end_tokens

SPARE = 4  # tokens beyond the longest answer of a batch: room to be wrong in


class _StopAt(StoppingCriteria):  # type: ignore[misc]  # transformers has no types here
    """Ends each row once a text stands in what it has written."""

    def __init__(self, loaded: LoadedBase, width: int, stop: str) -> None:
        self.tokenizer, self.width, self.stop = loaded.tokenizer, width, stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """Return which rows are done, bool [B]."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.width :])
        return torch.tensor([self.stop in text for text in texts], device=input_ids.device)


def greedy(
    loaded: LoadedBase, rows: Sequence[Encoded], *, batch_size: int = 32, stop: str | None = "\n"
) -> tuple[str, ...]:
    """Return what the model writes after each prompt, greedily.

    It goes on up to ``stop``, an end token, or a few tokens more than the longest answer of its batch has. Nothing else
    has a say, not the base's ``generation_config.json`` either: each token is the most likely one, as in scoring.

    Args:
        loaded: the base, with whatever is merged into it.
        rows: prompts; their answers only say how long to go on.
        batch_size: rows a batch.
        stop: the text is cut before this; None leaves it.
    """
    written = [""] * len(rows)
    for indices in scoring_batches([len(row.prompt_ids) for row in rows], batch_size=batch_size):
        parts = loaded.micro_batch.parts(
            "writing", indices, lambda part: _decode(loaded, [rows[index] for index in part], stop)
        )
        for part, texts in parts:
            for index, text in zip(part, texts, strict=True):
                written[index] = text
    return tuple(written)


@contextmanager
def _without_settings(model: PreTrainedModel) -> Iterator[None]:
    """Hide a base's own settings, such as a repetition penalty: ``generate`` takes them where none are given."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _decode(loaded: LoadedBase, rows: Sequence[Encoded], stop: str | None) -> list[str]:
    prompts = loaded.family.prompts(rows, loaded.device)
    config = GenerationConfig(
        max_new_tokens=max(len(row.answer_ids) for row in rows) + SPARE,
        do_sample=False,
        eos_token_id=list(end_tokens(loaded)),
        pad_token_id=int(loaded.tokenizer.pad_token_id),
        decoder_start_token_id=prompts.start,
    )
    stopping = StoppingCriteriaList([] if stop is None else [_StopAt(loaded, prompts.width, stop)])
    with _without_settings(loaded.model), torch.inference_mode():
        out = loaded.model.generate(**prompts.inputs, generation_config=config, stopping_criteria=stopping)
    texts = [
        loaded.family.written(before, ids)
        for before, ids in zip(prompts.before, out[:, prompts.width :].tolist(), strict=True)
    ]
    return [text if stop is None else text.split(stop)[0] for text in texts]
