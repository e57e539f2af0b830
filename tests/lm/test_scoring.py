"""Scoring: one forward pass says what greedy decoding would write."""

import pytest
import torch

from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.registry.bases import Base


def test_exact_match_is_what_generate_writes(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    rows, wanted = [], []
    for index in range(6):
        prompt = torch.tensor([[10 + index, 50, 60 + index]])
        written = loaded.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False,
            pad_token_id=0, eos_token_id=None,
        )[0, 3:].tolist()  # fmt: skip
        right = index % 2 == 0
        answer = written if right else [*written[:2], (written[2] + 1) % 300]
        rows.append(Encoded(tuple(prompt[0].tolist()), tuple(answer)))
        wanted.append(right)
    assert score_rows(loaded, rows, batch_size=4).exact == tuple(wanted)


def test_nll_does_not_depend_on_the_batch(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    rows = [Encoded(tuple(range(5, 7 + index)), (40, 41 + index)[: 1 + index % 2]) for index in range(9)]
    together, alone = score_rows(loaded, rows, batch_size=9), score_rows(loaded, rows, batch_size=1)
    assert together.nll == pytest.approx(alone.nll, abs=2e-5)
    assert together.exact == alone.exact
    assert together.mean_nll == pytest.approx(sum(alone.nll) / 9, abs=2e-5)
