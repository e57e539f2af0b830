"""Each rung gives the adapter that its name says."""

import pytest
import torch

from icmlora_cli.baselines.rungs import AverageRung, BaseRung, GeneratedRung, HarvestedRung, Unavailable
from icmlora_cli.config.recipes import HarvestRecipe
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.examples import Example
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.task_file import TaskSpec
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.weights.adapter import Adapter, Factors, read_adapter
from icmlora_cli.workflows import harvest

RECIPE = HarvestRecipe(steps=4, batch_size=4, keep=1, learning_rate=1e-2, rank=2)


def tasks(home: Home) -> list[Task]:
    made = []
    for name, word in (("one", "cat"), ("two", "dog"), ("three", "owl")):
        rows = [{"input": f"{name} {index}", "output": word} for index in range(30)]
        spec = TaskSpec.model_validate({"name": name, "descriptions": [f"Say {word}."], "examples": rows})
        made.append(TaskStore(home).add(spec, [Example(**row) for row in rows])[0])
    return made


def test_rungs(llama_base: Base, home: Home) -> None:
    one, two, three = tasks(home)
    records = harvest.run([one, two], llama_base, RECIPE, home, device="cpu").records
    store = AdapterStore(home)
    oracle = HarvestedRung(store, llama_base)
    with pytest.raises(Unavailable, match="not harvested"):
        oracle.adapter(three)
    first, second = oracle.adapter(one), oracle.adapter(two)
    assert first is not None and second is not None
    name = next(iter(first.factors))
    assert torch.equal(first.delta(name), read_adapter(records[0].last).delta(name))
    grown = TaskSpec.model_validate(
        {"name": "one", "descriptions": ["Say cat."], "examples": [{"input": "x", "output": "y"}]}
    )
    rows = [Example(f"other {index}", "cat") for index in range(30)]
    changed, _ = TaskStore(home).add(grown, rows, replace=True)
    with pytest.raises(Unavailable):
        oracle.adapter(changed)  # its adapter learned other examples
    soup = AverageRung(store, records).adapter(three)
    assert soup is not None
    assert torch.allclose(soup.delta(name), (first.delta(name) + second.delta(name)) / 2, atol=1e-6)
    alone = AverageRung(store, records[:1]).adapter(three)
    assert alone is not None and torch.allclose(alone.delta(name), first.delta(name), atol=1e-6)
    with pytest.raises(Unavailable):
        AverageRung(store, ()).adapter(one)


def test_base_rungs_merge_nothing_and_generated_uses_the_first_description(home: Home) -> None:
    one, *_ = tasks(home)
    assert BaseRung().adapter(one) is None and BaseRung(described=True).adapter(one) is None
    assert (BaseRung().name, BaseRung(described=True).name) == ("base", "described")
    asked: list[str] = []
    made = Adapter("b", 1.0, {"m": Factors(torch.ones(1, 2), torch.ones(3, 1))})

    def make(text: str) -> Adapter:
        asked.append(text)
        return made

    assert GeneratedRung(make).adapter(one) is made
    assert asked == [one.descriptions[0]]
