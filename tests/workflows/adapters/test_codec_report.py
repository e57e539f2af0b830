"""What a shared basis keeps of adapters of any rank on any modules, against dense matrices and the evaluation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import DataRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, UsageError
from icmlora_cli.lm.load import load_base
from icmlora_cli.methods.harvested import HarvestedMethod
from icmlora_cli.methods.method import TaskContext
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import Adapter, Factors, read_adapter, write_adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.weights.registered import read_last
from icmlora_cli.workflows.adapters.codec_report import WIDTHS, run
from icmlora_cli.workflows.adapters.import_adapters import ImportRequest
from icmlora_cli.workflows.adapters.import_adapters import run as import_adapter
from icmlora_cli.workflows.evaluate.scores import MethodScorer
from icmlora_cli.workflows.evaluate.task_metric import task_metric
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.select_tasks import tasks_to_train
from tests.random_lora import fitting_base

HARVEST = HarvestRecipe(steps=60, batch_size=6, learning_rate=3e-2, keep=2, keep_every=2, save_every=60, rank=4)
LEARNED = DataRecipe(basis="learned")
SHAPES = {"q_proj": (32, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
PIRATE = "Answer as a pirate would."
TEXT = "The blue whale is the largest animal. It is larger than an elephant, which lives on land. "


def lora(folder: Path, base: Base, rank: int, *modules: str, seed: int = 0) -> str:
    """Write a PEFT LoRA on some modules of both layers of the tiny Llama; return its folder."""
    rng = torch.Generator().manual_seed(seed)
    factors = {
        f"model.layers.{layer}.self_attn.{name}": Factors(
            torch.randn(rank, SHAPES[name][1], generator=rng) * 0.3,
            torch.randn(SHAPES[name][0], rank, generator=rng) * 0.3,
        )
        for layer in range(2)
        for name in modules
    }
    adapter = Adapter(str(base.path), 2.0 * rank, factors)
    write_adapter(folder, adapter, fitting_base(adapter))
    return str(folder)


def mixed(base: Base, home: Home, tasks: Sequence[Task], root: Path) -> tuple[Task, ...]:
    """Fill the registry: rank 4 harvested (exact match), 16 on three modules (NLL), 2 on one, 2 and no examples."""
    harvest.run(tasks[:1], base, HARVEST, home, device="cpu")
    rows = [{"input": f"word {index}", "output": "cat"} for index in range(40)]
    spec = TaskSpec.model_validate({"name": "likely", "descriptions": ["Say it."], "metric": "nll", "examples": rows})
    TaskStore(home).add(spec, [Example(**row) for row in rows])
    large = lora(root / "large", base, 16, *SHAPES, seed=1)
    import_adapter(ImportRequest(large, task="likely"), base, home)
    import_adapter(ImportRequest(lora(root / "one", base, 2, "q_proj", seed=2), task=tasks[1].name), base, home)
    import_adapter(ImportRequest(lora(root / "pirate", base, 2, "v_proj", seed=3), describe=PIRATE), base, home)
    return tasks_to_train(home, base.name, None)


def dense_energy(adapters: Sequence[Adapter], measured: Adapter, width: int) -> float:
    """Return the energy kept, from whole matrices: eigenvectors of the sums of delta-W delta-W^T and its mirror."""
    names = {name for adapter in adapters for name in adapter.factors}
    sizes = [sum(float(a.delta(name).double().square().sum()) for name in a.factors) for a in adapters]
    kept = total = 0.0
    for name in names & set(measured.factors):
        own = [a.delta(name).double() / s**0.5 for a, s in zip(adapters, sizes, strict=True) if name in a.factors]
        u = torch.linalg.eigh(torch.stack([item @ item.T for item in own]).sum(0)).eigenvectors[:, -width:]
        v = torch.linalg.eigh(torch.stack([item.T @ item for item in own]).sum(0)).eigenvectors[:, -width:]
        delta = measured.delta(name).double()
        kept += float((u @ u.T @ delta @ v @ v.T).square().sum())
        total += float(delta.square().sum())
    return kept / total


def test_mixed_ranks_and_partial_modules(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    tasks = mixed(llama_base, home, say_tasks, tmp_path)
    seen: list[Progress] = []
    done = run(tasks, llama_base, DataRecipe(), home, widths=[16, 3, 32, 99], device="cpu", on_progress=seen.append)
    assert (done.basis, done.frame_seed, done.modules, done.checkpoints) == ("learned", None, 6, 5)
    assert {(item.task, item.rank, item.modules) for item in done.adapters} == {
        ("always_cat", 4, 4), ("always_dog", 2, 2), ("answer_as_a_pirate_would", 2, 2), ("likely", 16, 6),
    }  # fmt: skip
    assert done.unscored == ("answer_as_a_pirate_would",)
    assert [item.width for item in done.widths] == [3, 16, 32, 99]
    whole = done.widths[-1].used
    assert [item.used for item in done.widths] == [3, 16, whole, whole] and 16 < whole < 32
    assert {item.stage for item in seen} == {"fit", "score"} and seen[-1].items_done == seen[-1].items_total == 3

    store = AdapterStore(home)
    records = {task.name: store.latest(llama_base, task) for task in tasks}
    shaping = [read_adapter(store.checked(r, point)) for r in records.values() for point in r.checkpoints]
    for item in done.widths:
        for kept in item.adapters:
            wanted = dense_energy(shaping, read_last(store, records[kept.task]), item.width)
            assert kept.energy == pytest.approx(wanted, abs=1e-4)
        energies = {kept.task: kept.energy for kept in item.adapters}
        assert item.energy == pytest.approx(sum(energies.values()) / 4)
        assert item.worst == energies[item.worst_task] == min(energies.values())
    for narrow, wide in zip(done.widths, done.widths[1:], strict=False):
        for one, other in zip(narrow.adapters, wide.adapters, strict=True):
            assert one.energy <= other.energy + 1e-6
    assert done.widths[0].worst < 0.9 and done.widths[-1].worst == pytest.approx(1.0, abs=1e-5)
    # R x R on q and o; v has 16 outputs, and the others span fewer directions of its inputs
    assert done.widths[0].numbers == 6 * 3 * 3 and done.widths[0].basis_bytes == 4 * 3 * (2 * 4 * 32 + 2 * (16 + 32))

    for adapter, first, last in zip(done.adapters, done.widths[0].adapters, done.widths[-1].adapters, strict=True):
        if adapter.before is None:
            assert adapter.metric is first.after is last.after is None
            continue
        assert last.after == pytest.approx(adapter.before, rel=1e-3)
    before = {item.task: item.before for item in done.adapters}
    assert before["always_cat"] == 1.0
    exact, nll = done.widths[-1].costs
    assert (exact.metric, exact.tasks, nll.metric, nll.tasks) == ("exact_match", 2, "nll", 1)
    assert exact.before == exact.after == (1.0 + (before["always_dog"] or 0.0)) / 2 and exact.kept == 1.0
    assert nll.before == before["likely"] and nll.kept == pytest.approx(1.0, rel=1e-3)
    narrow_nll = done.widths[0].costs[1]
    assert narrow_nll.before == nll.before and abs(narrow_nll.after - nll.before) > 1e-3
    assert narrow_nll.kept == pytest.approx(narrow_nll.before / narrow_nll.after)

    bare = run(tasks[:2], llama_base, LEARNED, home, limit=None)
    assert bare.unscored == () and all(item.costs == () for item in bare.widths)
    assert all(item.before is None for item in bare.adapters) and [item.width for item in bare.widths] == [*WIDTHS]


def test_a_frame_is_exact_at_its_own_width(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    framed = HARVEST.model_copy(update={"parametrization": "frame", "rank": 7, "seed": 3})
    harvest.run(say_tasks[:1], llama_base, framed, home, device="cpu")
    done = run(say_tasks[:1], llama_base, DataRecipe(), home, limit=8, device="cpu")
    assert (done.basis, done.frame_seed) == ("frame", 3)
    assert [item.width for item in done.widths] == sorted({*WIDTHS, 7})
    energies = {item.width: item.energy for item in done.widths}
    assert energies[7] == pytest.approx(1.0, abs=1e-5) and energies[4] < 0.9 and energies[8] < 0.9
    assert all(item.basis_bytes == 0 for item in done.widths)
    own = next(item for item in done.widths if item.width == 7)
    assert own.numbers == 4 * 7 * 7 and own.adapters[0].after == done.adapters[0].before
    assert done.widths[-1].used == 32  # no frame is wider than its module, and there it is exact again
    assert energies[48] == pytest.approx(1.0, abs=1e-5)

    import_adapter(
        ImportRequest(lora(tmp_path / "a", llama_base, 2, "q_proj"), task=say_tasks[1].name), llama_base, home
    )
    assert run(say_tasks[:2], llama_base, DataRecipe(), home, widths=[7], limit=None).basis == "learned"
    roomy = DataRecipe(directions=2)
    (both,) = run(say_tasks[:2], llama_base, roomy, home, widths=[7], limit=None).widths
    assert both.used == 9 and both.worst == pytest.approx(1.0, abs=1e-4)
    assert both.basis_bytes == 4 * 2 * 2 * (32 + 32)  # both sides of q_proj in two layers
    other = run(say_tasks[1:2], llama_base, DataRecipe(basis="frame", frame_seed=5), home, limit=None)
    assert (other.basis, other.frame_seed) == ("frame", 5) and other.widths[0].worst < 0.5


def test_the_metric_is_that_of_the_evaluation(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    rows = [{"input": "", "output": TEXT[index:] + TEXT[:index]} for index in range(30)]
    spec = TaskSpec.model_validate(
        {"name": "whales", "descriptions": ["Of whales."], "template": "text", "metric": "perplexity",
         "examples": [row["output"] for row in rows]}
    )  # fmt: skip
    text = TaskStore(home).add(spec, [Example(**row) for row in rows])[0]
    brief = HARVEST.model_copy(update={"steps": 4})  # so that answers are wrong, and have to be decoded
    harvest.run([say_tasks[0], text], llama_base, brief, home, device="cpu")
    loaded, store = load_base(llama_base, device="cpu"), AdapterStore(home)
    scorer, method = MethodScorer(loaded, False, 6, 0), HarvestedMethod(store, llama_base)
    for task in (text, *(replace(say_tasks[0], metric=name) for name in ("exact_match", "f1", "nll"))):
        score = scorer.score(method, TaskContext(task, ()), None, "key")
        with merged(loaded.model, read_last(store, store.latest(llama_base, task))):
            found = task_metric(loaded, task, task.examples("test")[:6])
        assert found == pytest.approx(score.scores[task.metric].value, rel=1e-6), task.metric
        assert task.metric != "exact_match" or found < 1.0


def test_what_is_wrong_is_told(llama_base: Base, home: Home, say_tasks: tuple[Task, ...]) -> None:
    with pytest.raises(NotFoundError, match="always_cat") as caught:
        run(say_tasks, llama_base, LEARNED, home)
    assert caught.value.hint == "icmlora harvest --tasks always_cat"
    with pytest.raises(UsageError, match="no task"):
        run((), llama_base, LEARNED, home)
    for widths in ([], [4, 0], [-1]):
        with pytest.raises(UsageError, match="no list of widths"):
            run(say_tasks, llama_base, LEARNED, home, widths=widths)
