"""Batches: padding changes nothing, plans repeat, logits are computed at the answers only."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icmlora_cli.lm.batching import IGNORED, answer_log_probs, collate, scoring_batches, training_batches
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.registry.bases import Base

ROWS = [
    Encoded((5, 6, 7), (8, 9)),
    Encoded((5, 6, 7, 8, 9, 10, 11), (12,)),
    Encoded((5,), (6, 7, 8, 9)),
]


def test_answers_end_together() -> None:
    batch = collate(ROWS, 0, torch.device("cpu"))
    assert batch.input_ids.shape == (3, 8) and batch.labels.shape == (3, 4)
    assert batch.labels[1].tolist() == [IGNORED, IGNORED, IGNORED, 12]
    assert batch.input_ids[0].tolist() == [0, 0, 0, 5, 6, 7, 8, 9]
    assert batch.position_ids[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4]


def test_padding_and_partial_logits_change_nothing(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    together, _ = answer_log_probs(loaded.model, collate(ROWS, 0, loaded.device))
    for index, row in enumerate(ROWS):
        ids = torch.tensor([row.prompt_ids + row.answer_ids])
        logits = loaded.model(input_ids=ids).logits[0].float().log_softmax(-1)
        start = len(row.prompt_ids)
        wanted = [float(logits[start + at - 1, token].detach()) for at, token in enumerate(row.answer_ids)]
        got = together[index, -len(row.answer_ids) :].tolist()
        assert got == pytest.approx(wanted, abs=2e-5)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80),
    size=st.integers(1, 16),
    steps=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_a_plan_repeats_and_is_sorted_into_batches(lengths: list[int], size: int, steps: int, seed: int) -> None:
    plan = training_batches(lengths, batch_size=size, steps=steps, seed=seed)
    assert plan == training_batches(lengths, batch_size=size, steps=steps, seed=seed)
    assert len(plan) == steps
    assert plan[: steps // 2] == training_batches(lengths, batch_size=size, steps=steps // 2, seed=seed)
    for batch in plan:
        assert len(batch) == min(size, len(lengths)) == len(set(batch))
        assert [lengths[index] for index in batch] == sorted(lengths[index] for index in batch)


@given(count=st.integers(1, 130), size=st.integers(1, 16), epochs=st.integers(1, 4), seed=st.integers(0, 5))
def test_an_epoch_sees_every_example(count: int, size: int, epochs: int, seed: int) -> None:
    steps = -(-epochs * count // min(size, count))
    plan = training_batches(range(1, count + 1), batch_size=size, steps=steps, seed=seed)
    seen = Counter(index for batch in plan for index in batch)
    assert len(seen) == count and min(seen.values()) >= epochs
    for step in range(steps):
        seen = Counter(dict.fromkeys(range(count), 0))
        seen.update(index for batch in plan[:step] for index in batch)
        assert max(seen.values()) - min(seen.values()) <= 1


@pytest.mark.parametrize("count", [13, 23, 35, 50, 95])
def test_the_longest_weigh_as_much_as_others(count: int) -> None:
    plan = training_batches(range(1, count + 1), batch_size=12, steps=12 * count, seed=0)
    seen = Counter(index for batch in plan for index in batch)
    assert set(seen.values()) == {144}


@given(lengths=st.lists(st.integers(1, 50), max_size=60), size=st.integers(1, 16))
def test_scoring_takes_each_example_once(lengths: list[int], size: int) -> None:
    taken = [index for batch in scoring_batches(lengths, batch_size=size) for index in batch]
    assert sorted(taken) == list(range(len(lengths)))
