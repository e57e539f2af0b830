"""Which numbers are in which format: the base in bfloat16 where the device has it, all that is trained in fp32.

The bounds are relative to fp32 runs of the same tiny random models; see docs/devices.md.
"""

from pathlib import Path

import pytest
import torch

from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.optimise import adamw
from icmlora_cli.lm.passes import StepPasses, take_step
from icmlora_cli.lm.perplexity import score_texts
from icmlora_cli.lm.prompts import Encoded, encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.compare import compare
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.harvest import harvest
from tests.sim.conftest import HARVEST, Place, make_place, register
from tests.sim_device import SimDevice

NLL = 0.03  # nats per token: what bfloat16 may change of an answer's NLL
VECTOR = 0.02  # relative error of a task vector
ADAPTER = 0.2  # relative error of delta-W after the same few steps
RECIPE = HARVEST.model_copy(update={"steps": 8, "learning_rate": 1e-2})


def both_formats(base: Base) -> tuple[LoadedBase, LoadedBase]:
    return load_base(base, device="cpu", dtype="float32"), load_base(base, device="cpu", dtype="bfloat16")


def rows_of(loaded: LoadedBase, home: Home) -> list[Encoded]:
    task = register(home, "cat", "train")
    return encode_task(loaded.family, task, task.examples("train")[:16])


def trained(loaded: LoadedBase, rows: list[Encoded], kind: str) -> tuple[list[float], Adapter]:
    framed = {"rank": 8, "learning_rate": 1e-1} if kind == "frame" else {}
    recipe = RECIPE.model_copy(update={"parametrization": kind} | framed)
    with trainer_of(loaded, recipe) as trainer:
        trainer.reset()
        optimizer = adamw(trainer)
        losses = [take_step(StepPasses(trainer), rows[:8], optimizer, step)[0] for step in range(recipe.steps)]
        assert {item.dtype for item in trainer.parameters.values()} == {torch.float32}
        slots = [value for state in optimizer.state.values() for value in state.values()]
        assert {value.dtype for value in slots} == {torch.float32}
        return losses, trainer.adapter()


@pytest.mark.parametrize("kind", ["lora", "frozen-a", "frame"])
def test_a_bf16_base_trains_nearly_the_same_adapter_in_fp32(tiny_base: Base, home: Home, kind: str) -> None:
    full, half = both_formats(tiny_base)
    rows = rows_of(full, home)
    (losses, adapter), (near_losses, near) = trained(full, rows, kind), trained(half, rows, kind)
    assert near_losses == pytest.approx(losses, abs=NLL)
    assert losses[-1] < losses[0] - NLL  # it has learned more than the bound
    assert {item.lora_a.dtype for item in near.factors.values()} == {torch.float32}
    assert compare(near, adapter).all.error < ADAPTER


def test_a_bf16_base_scores_and_reads_nearly_the_same(tiny_base: Base, home: Home, tmp_path: Path) -> None:
    full, half = both_formats(tiny_base)
    rows = rows_of(full, home)
    wanted, found = score_rows(full, rows), score_rows(half, rows)
    assert found.nll == pytest.approx(wanted.nll, abs=NLL)
    passages = ["one two three four five six seven", "The capital of France is Paris."]
    for one, two in zip(score_texts(full, passages), score_texts(half, passages), strict=True):
        assert two.nll / two.tokens == pytest.approx(one.nll / one.tokens, abs=NLL)
    vectors = [VectorReader(item, VectorRecipe(), home).text("Always answer with cat.") for item in (full, half)]
    assert {item.dtype for item in vectors} == {torch.float32}
    assert float((vectors[0] - vectors[1]).norm() / vectors[0].norm()) < VECTOR


def test_an_adapter_changes_a_bf16_base_as_it_changes_an_fp32_one(tiny_base: Base, home: Home) -> None:
    full, half = both_formats(tiny_base)
    rows = rows_of(full, home)
    _, adapter = trained(full, rows, "lora")
    changes = []
    for loaded in (full, half):
        before = score_rows(loaded, rows).mean_nll
        with merged(loaded.model, adapter):
            changes.append(score_rows(loaded, rows).mean_nll - before)
    assert changes[0] < -NLL and changes[1] == pytest.approx(changes[0], abs=NLL)


@pytest.mark.sim
def test_a_device_with_bf16_is_used_in_it(
    sim: SimDevice, tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "bf16", True)
    place: Place = make_place("sim:0", tiny_bases["llama"], tmp_path)
    (record,) = harvest.run(place.seen[:1], place.base, HARVEST, place.home, device="sim:0").records
    assert record.about is not None and record.about.dtype == "torch.bfloat16"
    loaded = load_base(place.base, device="sim:0")
    assert {item.dtype for item in loaded.model.parameters()} == {torch.bfloat16}
    rows = encode_task(loaded.family, place.tasks[0], place.tasks[0].examples("train")[:8])
    with trainer_of(loaded, HARVEST) as trainer:
        trainer.reset()
        take_step(StepPasses(trainer), rows, adamw(trainer), 0)
        assert {item.dtype for item in trainer.parameters.values()} == {torch.float32}
    full = load_base(place.base, device="cpu", dtype="float32")
    assert score_rows(loaded, rows).nll == pytest.approx(score_rows(full, rows).nll, abs=NLL)
