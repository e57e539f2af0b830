"""Harvest of a task of plain text."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.lm.batching import answer_log_probs, collate, training_batches
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.perplexity import aggregate, score_texts
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.trainers import FrameTrainer
from icmlora_cli.registry.adapters import MANIFEST, SENSITIVITY, AdapterStore, read_record
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.registry.upkeep.checks import adapter_flaws
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.weights.sensitivity import read_sensitivity
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.harvest.keys import harvest_key
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.registry import export, import_archive
from tests.small_registry import cut, flip

RECIPE = HarvestRecipe(steps=30, batch_size=4, learning_rate=3e-2, keep=1, rank=2)


def test_plain_text_is_learned_and_validated_in_bits_per_character(llama_base: Base, home: Home) -> None:
    passages = [Example("", f"Chapter {number}. " + "one two three four five. " * 8) for number in range(40)]
    values = {"name": "book", "description": "A book.", "template": "text", "examples": [{"text": "a"}]}
    task, _ = TaskStore(home).add(TaskSpec.model_validate(values), passages)
    said: list[Progress] = []
    result = harvest.run([task], llama_base, RECIPE, home, device="cpu", on_progress=said.append)
    (record,) = result.records
    assert set(record.figures) == {"loss", "seconds", "bits_per_character", "perplexity"}
    loaded = load_base(llama_base, device="cpu")
    texts = [example.output for example in task.examples("validation")]
    base = aggregate(score_texts(loaded, texts))
    with merged(loaded.model, read_adapter(record.last)):
        adapted = aggregate(score_texts(loaded, texts))
    assert math.isclose(record.figures["bits_per_character"], adapted.bits_per_character, rel_tol=1e-4)
    assert math.isclose(record.figures["perplexity"], adapted.perplexity, rel_tol=1e-4)
    assert adapted.bits_per_character < base.bits_per_character - 0.1
    assert "validation bits per character" in said[-1].detail


@pytest.mark.parametrize(
    ("count", "tokenizer", "mends"),
    [
        (7, '"ByteLevel"', []),
        (12, '"ByteLevel"', []),
        (13, '"ByteLevel"', ["every example"]),
        (95, '"ByteLevel"', ["every example"]),
        (97, '"ByteLevel"', []),
        (12, '"Metaspace"', ["answers after prompts"]),
    ],
)
def test_a_key_changes_only_where_a_mend_counts(
    count: int, tokenizer: str, mends: list[str], llama_base: Base, home: Home, tmp_path: Path
) -> None:
    files.write_text(tmp_path / "base" / "tokenizer.json", tokenizer)
    base = dataclasses.replace(llama_base, path=tmp_path / "base")
    spec = TaskSpec.model_validate({"name": "say", "description": "Say.", "examples": [{"input": "a", "output": "b"}]})
    task, _ = TaskStore(home).add(spec, [Example(f"{number}", "b") for number in range(20)])
    task = dataclasses.replace(task, counts={"train": count, "validation": 1, "test": 1})
    recipe = HarvestRecipe(batch_size=12)
    values = recipe.model_dump(
        mode="json", exclude={"save_every", "validate_on", "parametrization", *HarvestRecipe.LATER}
    )
    known = files.sha256_json([1, base.weight_hash, task.data_hash, values, *mends])[:12]
    assert harvest_key(base, task, recipe) == known


FRAMED = HarvestRecipe(parametrization="frame", steps=1, batch_size=4, learning_rate=3e-2, keep=1, rank=4, seed=3)


def test_a_harvest_in_a_frame_records_the_mean_squared_gradient(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...]
) -> None:
    """Of one step it is the squared gradient of the first batch, but for a factor."""
    (record,) = harvest.run(say_tasks[:1], llama_base, FRAMED, home, device="cpu").records
    path = AdapterStore(home).checked_sensitivity(record)
    assert path is not None and record.sensitivity is not None and record.sensitivity.bytes == path.stat().st_size
    assert read_record(record.folder / MANIFEST) == record
    found = read_sensitivity(path)
    trainer = FrameTrainer(load_base(llama_base, device="cpu"), FRAMED)
    trainer.reset()
    rows = encode_task(trainer.loaded.family, say_tasks[0], say_tasks[0].examples("train"))
    plan = training_batches([row.length for row in rows], batch_size=4, steps=1, seed=FRAMED.seed)
    batch = collate([rows[index] for index in plan[0]], trainer.loaded.tokenizer.pad_token_id, trainer.loaded.device)
    loss = -answer_log_probs(trainer.model, batch)[0].sum()
    (gradient,) = torch.autograd.grad(loss, trainer.parameters["cores"])
    wanted = gradient[0].square() / gradient.square().mean()
    assert list(found) == [item.name for item in trainer.frame.layout.modules]
    assert torch.allclose(torch.stack(list(found.values())), wanted, rtol=5e-3, atol=1e-4)
    trainer.close()


def test_the_recorded_gradients_are_checked_and_go_along(
    llama_base: Base, home: Home, say_tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    framed, lora = (
        harvest.run(say_tasks[at : at + 1], llama_base, recipe, home, device="cpu").records[0]
        for at, recipe in ((0, FRAMED), (1, FRAMED.model_copy(update={"parametrization": "lora"})))
    )
    assert lora.sensitivity is None and not (lora.folder / SENSITIVITY).exists()
    export.run(home, tmp_path / "all.tar.zst")
    other = Home(tmp_path / "home", tmp_path / "cache")
    import_archive.run(other, tmp_path / "all.tar.zst")
    there = AdapterStore(other)
    (copied,) = (item for item in there.all() if item.task == framed.task)
    assert copied.sensitivity == framed.sensitivity and there.checked_sensitivity(copied) is not None

    def kinds(quick: bool = False) -> list[str]:
        flaws = adapter_flaws(framed.folder, framed.base, framed.task, framed.key, quick=quick)
        assert all(flaw.path == framed.folder / SENSITIVITY for flaw in flaws)
        return [flaw.kind for flaw in flaws]

    path, whole = framed.folder / SENSITIVITY, (framed.folder / SENSITIVITY).read_bytes()
    assert kinds() == []
    flip(path)
    assert kinds() == ["changed"] and kinds(quick=True) == []
    with pytest.raises(CorruptFileError, match="sensitivity") as caught:
        AdapterStore(home).checked_sensitivity(framed)
    assert caught.value.hint is not None and "icmlora harvest" in caught.value.hint
    path.write_bytes(whole)
    cut(path)
    assert kinds(quick=True) == ["truncated"]
    path.unlink()
    assert kinds() == ["missing"]
    path.write_bytes(whole)
    AdapterStore(home).record(dataclasses.replace(framed, sensitivity=None))
    assert kinds() == ["unlisted"]
    export.run(home, tmp_path / "without.tar.zst")  # what no manifest lists stays here
    import_archive.run(Home(tmp_path / "third", tmp_path / "cache"), tmp_path / "without.tar.zst")
    assert not (tmp_path / "third" / (framed.folder / SENSITIVITY).relative_to(home.root)).exists()


OLD = {
    "parametrization": "frame", "rank": 4, "alpha": 8.0, "target_modules": "auto", "steps": 100, "batch_size": 12,
    "learning_rate": 3e-3, "warmup": 0.2, "weight_decay": 0.0, "max_grad_norm": 1.0, "keep": 3, "keep_every": 5,
    "seed": 0,
}  # fmt: skip


def test_later_settings_change_a_key_only_where_they_decide_something() -> None:
    assert HarvestRecipe(parametrization="frame").decisive() == OLD
    assert HarvestRecipe().decisive() == {name: value for name, value in OLD.items() if name != "parametrization"}
    same = {"micro_batch": 2, "gradient_checkpointing": True, "packing": True, "attn_implementation": "eager"}
    same |= {"device_map": "auto", "compile": True, "save_every": 7}
    assert HarvestRecipe.model_validate({"parametrization": "frame"} | same).decisive() == OLD
    for other in ({"max_length": 100}, {"quantise": "nf4"}):
        assert HarvestRecipe.model_validate({"parametrization": "frame"} | other).decisive() == OLD | other
    assert set(HarvestRecipe.model_fields) - set(OLD) - {"save_every", "validate_on"} == set(HarvestRecipe.LATER)
