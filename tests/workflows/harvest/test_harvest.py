"""Harvest of a task of plain text."""

import dataclasses
import math
from pathlib import Path

import pytest

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.perplexity import aggregate, score_texts
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import Progress

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
    values = recipe.model_dump(mode="json", exclude={"save_every", "validate_on", "parametrization"})
    known = files.sha256_json([1, base.weight_hash, task.data_hash, values, *mends])[:12]
    assert harvest.harvest_key(base, task, recipe) == known
