"""How far a text lies from the training tasks, on conditions whose distances are plain to see."""

import pytest
import torch

from icmlora_cli.workflows.gen.explain import Seen, range_of


def seen(*places: float) -> Seen:
    """Return training tasks on a line."""
    names = tuple(f"task_{index}" for index in range(len(places)))
    return Seen(names, names, torch.tensor(places, dtype=torch.float64)[:, None].expand(-1, 2))


def at(place: float) -> torch.Tensor:
    return torch.full((2,), place, dtype=torch.float64)


def test_distances_are_measured_by_those_of_the_training_tasks() -> None:
    tasks = seen(0.0, 1.0, 2.0, 3.0, 10.0)  # the nearest others are 1, 1, 1, 1 and 7 away, times sqrt(2)
    far = range_of(at(5.0), 0.0, tasks, 1.25)
    assert far.distance == pytest.approx(2 * 2**0.5) and far.usual == pytest.approx(2**0.5)
    assert far.ratio == pytest.approx(2.0) and far.percentile == pytest.approx(0.8) and far.outside
    near = range_of(at(3.5), 0.0, tasks, 1.25)
    assert near.ratio == pytest.approx(0.5) and near.percentile == 0.0 and not near.outside
    assert not range_of(at(5.0), 0.0, tasks, 3.75).outside
    assert range_of(at(3.5), 0.06, tasks, 1.25).outside
    assert range_of(at(3.0), 0.0, tasks, 1.25).ratio == 0.0


def test_too_few_tasks_say_nothing_of_what_is_usual() -> None:
    one = range_of(at(3.0), 0.0, seen(1.0), 1.25)
    assert one.distance == pytest.approx(2 * 2**0.5) and one.ratio is one.usual is None and not one.outside
    none = range_of(at(3.0), 0.5, Seen((), (), torch.zeros(0, 0)), 1.25)
    assert none.distance is None and none.tasks == 0 and none.outside
    same = range_of(at(3.0), 0.0, seen(1.0, 1.0), 1.25)
    assert same.usual == 0.0 and same.ratio is None and same.outside
