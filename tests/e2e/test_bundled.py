"""The generator that comes with icmlora, with the real base and no registry: what its adapters can do."""

import os
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import encode_task
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.weights.adapter import read_adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.base.pull import resolve
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.tasks import add

TASKS = ("pick_last_of_3", "capitalize_word", "fruit_among_animals_3", "lowercase_word")


@pytest.mark.slow
def test_gen_without_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ICMLORA_TEST_CACHE" in os.environ:  # where SmolLM2 is already
        monkeypatch.setenv("ICMLORA_CACHE", os.environ["ICMLORA_TEST_CACHE"])
    monkeypatch.setenv("ICMLORA_HOME", str(tmp_path / "home"))
    home = Home.from_environment()
    base: Base = resolve("smollm2-135m", home)
    folder = GeneratorStore(home).find("default")
    assert not (tmp_path / "home").exists()
    loaded = load_base(base, device="cpu")
    other = Home(tmp_path / "other", tmp_path / "cache")  # for the examples to score on
    add(other, [f"builtin:{name}" for name in TASKS])
    for task in TaskStore(other).all():
        done = generate.run(task.descriptions[0], tmp_path / task.name, GenRequest(folder), base, home)
        examples = encode_task(loaded.family, task, task.examples("test")[:32])
        with merged(loaded.model, read_adapter(done.folder)):
            assert score_rows(loaded, examples).exact_match >= 0.8, task.name
        assert score_rows(loaded, examples).exact_match <= 0.1
