"""Supports: batches of them, noise and dropout on them, and how readings become them."""

import pytest
import torch

from icmlora_cli.generator.conditions import EMPTY, SHOWN, TEXT, ConditionSpace, SlotStatistics, Support, pooled

HIDDEN = 8


def space() -> ConditionSpace:
    rng = torch.Generator().manual_seed(5)
    text, shown = (3.0 * torch.randn(50, HIDDEN, generator=rng) + shift for shift in (1.0, -2.0))
    return ConditionSpace(SlotStatistics.of(text), SlotStatistics.of(shown))


def support(text: int, shown: int, seed: int = 0) -> Support:
    """Return a support with so many states in each slot."""
    rng = torch.Generator().manual_seed(seed)
    states = [torch.randn(count, HIDDEN, generator=rng) if count else None for count in (text, shown)]
    return space().support(*states)


def test_a_batch_is_padded_at_the_end_with_nothing() -> None:
    items = [support(3, 0, 1), support(2, 4, 2), support(0, 0), support(0, 1, 3)]
    batch = Support.stack(items)
    assert batch.states.shape == (4, 6, HIDDEN) and batch.slots.shape == (4, 6)
    for row, item in enumerate(items):
        count = item.slots.shape[1]
        assert torch.equal(batch.states[row, :count], item.states[0])
        assert torch.equal(batch.slots[row, :count], item.slots[0])
        assert not batch.states[row, count:].any() and bool((batch.slots[row, count:] == EMPTY).all())
    assert Support.stack([items[2], items[2]]).states.shape == (2, 0, HIDDEN)


def test_each_slot_is_standardised_by_its_own_statistics_and_comes_in_order() -> None:
    made, rng = space(), torch.Generator().manual_seed(1)
    text, shown = torch.randn(2, HIDDEN, generator=rng), torch.randn(3, HIDDEN, generator=rng).half()
    found = made.support(text, shown)
    assert found.slots.tolist() == [[TEXT, TEXT, SHOWN, SHOWN, SHOWN]] and found.states.dtype == torch.float32
    assert torch.allclose(found.states[0, :2], (text - made.text.mean) / made.text.std, atol=1e-6)
    wanted = (shown.float() - made.demonstrations.mean) / made.demonstrations.std
    assert torch.allclose(found.states[0, 2:], wanted, atol=1e-6)
    assert torch.equal(made.support(text[0], None).states, made.support(text[:1], None).states)  # one pooled state
    again = ConditionSpace.from_tensors(made.tensors())
    assert torch.equal(again.support(text, shown).states, found.states)
    with pytest.raises(KeyError):
        ConditionSpace.from_tensors({})


def test_statistics_of_one_state_or_of_equal_ones_stay_finite() -> None:
    for states in (torch.ones(1, HIDDEN), torch.ones(4, HIDDEN), torch.zeros(0, HIDDEN)):
        applied = SlotStatistics.of(states).apply(torch.full((3, HIDDEN), 2.0))
        assert torch.isfinite(applied).all() and float(applied.abs().max()) <= 5.0


@pytest.mark.parametrize("drop", [0.5, 0.999])
def test_dropout_never_leaves_out_all_of_a_slot(drop: float) -> None:
    batch = Support.stack([support(1, 0, 1), support(0, 1, 2), support(6, 3, 3), support(0, 0), support(1, 9, 4)])
    lost = 0
    for seed in range(200):
        found = batch.disturbed(noise=0.0, drop=drop, rng=torch.Generator().manual_seed(seed))
        for slot in (TEXT, SHOWN):
            before, after = (batch.slots == slot).sum(1), (found.slots == slot).sum(1)
            assert bool((after <= before).all()) and torch.equal(after > 0, before > 0)
            lost += int((before - after).sum())
        left = found.slots != EMPTY
        assert torch.equal(found.slots[left], batch.slots[left])
        assert torch.equal(found.states[left], batch.states[left]) and not found.states[~left].any()
    spare = 5 + 2 + 8  # states of the slots that have several, but for one each
    assert lost > 200 * spare * (drop - 0.2)


def test_nothing_is_left_out_without_dropout_and_noise_is_only_where_there_are_states() -> None:
    batch = Support.stack([support(40, 30, 1), support(5, 0, 2)])
    there = batch.slots != EMPTY
    found = batch.disturbed(noise=0.5, drop=0.0, rng=torch.Generator().manual_seed(0))
    assert torch.equal(found.slots, batch.slots)
    assert not found.states[~there].any()
    deviation = (found.states - batch.states)[there]
    assert float(deviation.std()) == pytest.approx(0.5, rel=0.1) and abs(float(deviation.mean())) < 0.1
    assert bool((deviation != 0).all())
    same = batch.disturbed(noise=0.0, drop=0.0, rng=torch.Generator().manual_seed(0))
    assert torch.equal(same.states, batch.states) and torch.equal(same.slots, batch.slots)


def test_disturbance_is_decided_by_the_source() -> None:
    batch = Support.stack([support(6, 4, 1), support(2, 0, 2)])
    before = batch.states.clone(), batch.slots.clone()

    def draw(seed: int) -> Support:
        return batch.disturbed(noise=0.3, drop=0.4, rng=torch.Generator().manual_seed(seed))

    one, two, other = draw(7), draw(7), draw(8)
    assert torch.equal(one.states, two.states) and torch.equal(one.slots, two.slots)
    assert not torch.equal(one.states, other.states)
    assert torch.equal(batch.states, before[0]) and torch.equal(batch.slots, before[1])  # the given one stays


def test_pooling_is_the_mean_of_each_slot_whatever_the_padding() -> None:
    items = [support(3, 2, 1), support(0, 7, 2), support(0, 0), support(4, 0, 3)]
    together = pooled(Support.stack(items))
    assert together.shape == (4, 2 * HIDDEN + 2)
    for row, item in enumerate(items):
        assert torch.allclose(together[row], pooled(item)[0], atol=1e-6)
        for at, slot in enumerate((TEXT, SHOWN)):
            own = item.states[0][item.slots[0] == slot]
            wanted = own.mean(0) / HIDDEN**0.5 if len(own) else torch.zeros(HIDDEN)
            assert torch.allclose(together[row, at * HIDDEN : (at + 1) * HIDDEN], wanted, atol=1e-6)
            assert float(together[row, 2 * HIDDEN + at]) == float(len(own) > 0)
