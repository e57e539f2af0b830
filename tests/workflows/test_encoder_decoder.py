"""The whole way on tiny T5 and BART: harvest, train, gen, merge, eval; and what is not there for them."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UnsupportedAdapterError, UsageError
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.serving.engine import load_engine
from icmlora_cli.weights.adapter import CONFIG
from icmlora_cli.workflows.adapters import facts
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenOptions, GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.train import train
from tests.train_recipes import train_recipe
from tests.workflows.test_pipeline import METHODS, TEXTS, register

HARVEST = HarvestRecipe(steps=40, batch_size=6, learning_rate=3e-2, keep=1, save_every=20, rank=2)
TRAIN = train_recipe(
    steps=200, batch_size=8, learning_rate=3e-3, hidden_dim=48, code_dim=16, latent_dim=4, save_every=100,
    vectors=VectorRecipe(draws=2, shots=2),
)  # fmt: skip


def test_the_whole_way(encoder_decoder: Base, home: Home, tmp_path: Path) -> None:
    base, tasks = encoder_decoder, register(home)
    records = harvest.run(tasks, base, HARVEST, home, device="cpu").records
    layers = [item.layer for item in facts.facts(AdapterStore(home), records[0]).layers]
    assert layers == list(range(len(layers))) and len(layers) == (4 if base.architecture.startswith("T5") else 5)
    trained = train.run(tasks, base, TRAIN, home, device="cpu")
    assert trained.error < 0.2
    text = TEXTS["always_cat"]
    made = generate.run(text, tmp_path / "out", GenRequest(trained.folder), base, home, device="cpu")
    assert files.read_json(made.folder / CONFIG)["task_type"] == "SEQ_2_SEQ_LM"
    assert f"base = {base.architecture}.from_pretrained(" in (made.folder / "README.md").read_text(encoding="utf-8")
    generate.run(text, tmp_path / "model", GenRequest(trained.folder, merged=True), base, home, device="cpu")
    ids = {"input_ids": torch.arange(5, 25)[None], "decoder_input_ids": torch.arange(5, 10)[None]}
    whole = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    loaded = load_base(base, device="cpu")
    plain = loaded.model(**ids).logits
    adapted = PeftModel.from_pretrained(loaded.model, str(made.folder)).merge_and_unload()
    assert torch.allclose(adapted(**ids).logits, whole(**ids).logits, atol=1e-4)
    assert not torch.allclose(plain, whole(**ids).logits, atol=1e-2)
    result = evaluate.run(tasks, base, EvalRequest(METHODS, trained.folder), home, device="cpu").result
    for task in TEXTS:
        figures = (result.score(task, method).figures["nll"].value for method in ("base", "harvested", "generated"))
        of_base, harvested, generated = figures
        assert harvested < of_base - 0.1
        assert abs(generated - harvested) < 0.3 * (of_base - harvested)
        assert result.score(task, "harvested").unrelated is None  # no plain text is read
    request = GenRequest(trained.folder, options=GenOptions(format="gguf"))
    with pytest.raises(UnsupportedAdapterError, match="GGUF is written for"):
        generate.run(text, tmp_path / "gguf", request, base, home, device="cpu")


def test_it_is_not_served(encoder_decoder: Base, home: Home) -> None:
    with pytest.raises(UsageError, match="icmlora serve needs a base that is a decoder alone"):
        load_engine(encoder_decoder, home, device="cpu")
