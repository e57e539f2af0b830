"""Harvest of a task of plain text."""

import math

from icmlora_cli.config.harvest import HarvestRecipe
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
