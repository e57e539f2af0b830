"""Oracle, average, nearest and weighted give the adapters that their names say."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

from icmlora_cli.methods.harvested import AverageMethod, HarvestedMethod, Library, NearestMethod, Neighbours, softmax
from icmlora_cli.methods.method import TaskContext, UnavailableError
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.compare import compare
from icmlora_cli.workflows.evaluate.methods import methods_of

if TYPE_CHECKING:
    from tests.methods.conftest import Room

MakeRoom = Callable[..., "Room"]


def same(one: Adapter | None, two: Adapter | None) -> bool:
    assert one is not None and two is not None
    return compare(one, two).all.error < 1e-5


def methods(room: "Room") -> dict[str, object]:
    return {method.name: method for method in methods_of(room.evaluation)}


def test_the_oracle_is_the_tasks_own_adapter(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    oracle = HarvestedMethod(AdapterStore(room.home), room.base)
    record = AdapterStore(room.home).latest(room.base, room.tasks[0])
    assert same(oracle.serve(room.context(0)).adapter, read_adapter(record.last))
    assert not same(oracle.serve(room.context(0)).adapter, oracle.serve(room.context(1)).adapter)
    with pytest.raises(UnavailableError, match="not harvested"):
        oracle.serve(room.context(2))
    grown = TaskSpec.model_validate(
        {"name": "always_cat", "description": "Say cat.", "examples": [{"input": "x", "output": "y"}]}
    )
    changed, _ = TaskStore(room.home).add(grown, [Example(f"other {i}", "cat") for i in range(30)], replace=True)
    with pytest.raises(UnavailableError):  # its adapter learned other examples
        oracle.serve(TaskContext(changed, ()))


def test_the_average_is_the_mean_and_of_one_it_is_that_one(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    first, second = room.library.adapters()
    soup = AverageMethod(room.library).serve(room.context(2)).adapter
    assert soup is not None
    for module in first.factors:
        assert torch.allclose(soup.delta(module), (first.delta(module) + second.delta(module)) / 2, atol=1e-6)
    alone = Library(room.library.store, room.library.records[:1])
    assert same(AverageMethod(alone).serve(room.context(2)).adapter, first)
    with pytest.raises(UnavailableError, match="no training task"):
        AverageMethod(Library(room.library.store, ())).serve(room.context(0))


def test_the_nearest_of_a_seen_task_is_itself(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    nearest = methods(room)["nearest"]
    for index in (0, 1):
        served = nearest.serve(room.context(index))  # type: ignore[attr-defined]
        assert served.about["nearest"][0]["task"] == room.tasks[index].name
        assert same(served.adapter, room.library.adapter(room.tasks[index].name))
    unseen = nearest.serve(room.context(2))  # type: ignore[attr-defined]
    assert unseen.about["nearest"][0]["task"] in room.library.tasks  # never the unseen task's own


def test_the_nearest_other_is_never_itself(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    other = methods(room)["nearest-other"]
    for index, name in ((0, "always_dog"), (1, "always_cat")):
        served = other.serve(room.context(index))  # type: ignore[attr-defined]
        assert [item["task"] for item in served.about["nearest"]] == [name]
        assert same(served.adapter, room.library.adapter(name))
    nearest = methods(room)["nearest"]
    assert other.serve(room.context(2)).about == nearest.serve(room.context(2)).about  # type: ignore[attr-defined]
    assert other.identity(room.context(0)) != nearest.identity(room.context(0))  # type: ignore[attr-defined]
    library = Library(room.library.store, room.library.records[:1])
    known, vector = Neighbours(("always_cat",), torch.ones(1, 2)), torch.ones(2)
    alone = NearestMethod(library, lambda: known, lambda context: vector, 1, "alone", "", [], others=True)
    with pytest.raises(UnavailableError, match="no other"):
        alone.serve(room.context(0))


def test_the_nearest_by_examples_looks_at_the_examples(make_room: MakeRoom) -> None:
    room = make_room(generator=False)
    method = methods(room)["nearest-shots"]
    context = room.context(1)
    served = method.serve(context)  # type: ignore[attr-defined]
    assert served.about["nearest"][0]["task"] == "always_dog"
    disguised = type(context)(room.tasks[0], context.shots)  # dog's examples under cat's name
    assert method.serve(disguised).about["nearest"][0]["task"] == "always_dog"  # type: ignore[attr-defined]


def test_weights_sum_to_one_and_the_nearest_weighs_most(make_room: MakeRoom) -> None:
    room = make_room(generator=False, neighbours=2)
    served = methods(room)["weighted"].serve(room.context(0))  # type: ignore[attr-defined]
    found = served.about["nearest"]
    assert [item["task"] for item in found] == ["always_cat", "always_dog"]
    assert sum(item["weight"] for item in found) == pytest.approx(1.0, abs=1e-3)
    assert found[0]["weight"] > found[1]["weight"]
    one, two = room.library.adapters()
    module = next(iter(one.factors))
    wanted = found[0]["weight"] * one.delta(module) + found[1]["weight"] * two.delta(module)
    assert torch.allclose(served.adapter.delta(module), wanted, atol=1e-3)


def test_neighbours_by_cosine() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    found = Neighbours(("e", "n", "w", "s"), vectors).nearest(torch.tensor([0.9, 0.3]), 2)
    assert [name for name, _ in found] == ["e", "n"] and found[0][1] > found[1][1]
    assert softmax([0.0, 0.0]) == [0.5, 0.5] and softmax([1000.0, 0.0]) == [1.0, 0.0]
