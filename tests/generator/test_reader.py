"""Readers: padding changes nothing, an empty support can be read, and attention sees what a mean cannot."""

import pytest
import torch

from icmlora_cli.generator.conditions import EMPTY, SHOWN, TEXT, Support
from icmlora_cli.generator.reader import AttentionReader, MeanReader

HIDDEN = 12


def attention(layers: int = 1) -> AttentionReader:
    torch.manual_seed(0)
    return AttentionReader(HIDDEN, size=16, queries=3, layers=layers, condition_dim=10)


def readers() -> tuple[AttentionReader | MeanReader, ...]:
    return attention(0), attention(1), attention(2), MeanReader(HIDDEN)


def support(slots: list[int], seed: int) -> Support:
    states = torch.randn(1, len(slots), HIDDEN, generator=torch.Generator().manual_seed(seed))
    return Support(states, torch.tensor([slots], dtype=torch.long))


ITEMS = (
    support([TEXT] * 3, 1),
    support([TEXT] * 5 + [SHOWN] * 6, 2),
    support([], 3),
    support([SHOWN], 4),
)


@pytest.mark.parametrize("reader", readers())
def test_a_support_reads_the_same_alone_and_in_a_padded_batch(reader: AttentionReader | MeanReader) -> None:
    with torch.no_grad():
        together = reader(Support.stack(ITEMS))
        assert together.shape == (len(ITEMS), reader.size)
        for row, item in enumerate(ITEMS):
            assert torch.allclose(together[row], reader(item)[0], atol=1e-5)
        padded = Support.stack([ITEMS[0], support([TEXT] * 90, 5)])
        assert torch.allclose(reader(padded)[0], reader(ITEMS[0])[0], atol=1e-5)


@pytest.mark.parametrize("reader", readers())
def test_what_stands_in_empty_places_does_not_matter(reader: AttentionReader | MeanReader) -> None:
    item = support([TEXT, EMPTY, TEXT, SHOWN], 6)
    other = Support(item.states + 100.0 * (item.slots == EMPTY)[..., None], item.slots)
    with torch.no_grad():
        assert torch.allclose(reader(item), reader(other), atol=1e-5)


@pytest.mark.parametrize("reader", readers())
def test_an_empty_support_has_a_finite_condition(reader: AttentionReader | MeanReader) -> None:
    for item in (support([], 0), support([EMPTY, EMPTY], 0), Support.stack([support([], 0), support([], 0)])):
        c = reader(item)
        assert c.shape == (item.slots.shape[0], reader.size) and torch.isfinite(c).all()


@pytest.mark.parametrize("reader", readers())
def test_the_slot_and_the_states_matter(reader: AttentionReader | MeanReader) -> None:
    text = support([TEXT] * 4, 7)
    shown = Support(text.states, torch.full_like(text.slots, SHOWN))
    with torch.no_grad():
        assert not torch.allclose(reader(text), reader(shown), atol=1e-3)
        assert not torch.allclose(reader(text), reader(support([TEXT] * 4, 8)), atol=1e-3)


def test_the_one_state_that_differs_is_seen_by_attention_and_lost_in_a_mean() -> None:
    """Two texts whose states have the same mean, as when two words swap what they say of themselves."""
    first = support([TEXT] * 6, 9)
    moved = first.states.clone()
    moved[0, 1] += 2.0
    moved[0, 4] -= 2.0
    second = Support(moved, first.slots)
    with torch.no_grad():
        mean = MeanReader(HIDDEN)
        assert torch.allclose(mean(first), mean(second), atol=1e-6)
        for reader in (attention(0), attention(1)):
            assert not torch.allclose(reader(first), reader(second), atol=1e-3)


def test_gradients_reach_all_parameters_and_every_state() -> None:
    reader = attention(layers=2)
    batch = Support.stack(ITEMS)
    states = batch.states.clone().requires_grad_()
    weights = torch.randn(len(ITEMS), reader.size, generator=torch.Generator().manual_seed(0))
    (reader(Support(states, batch.slots)) * weights).sum().backward()
    dead = [name for name, item in reader.named_parameters() if item.grad is None or not item.grad.any()]
    assert dead == []
    assert all(torch.isfinite(item.grad).all() for item in reader.parameters() if item.grad is not None)
    assert states.grad is not None
    assert torch.equal(states.grad.any(2), batch.slots != EMPTY)
