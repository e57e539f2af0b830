"""The whole way on a tiny random Florence-2: tasks of images, harvest, train, gen, merge, eval."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.load import load_base
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.workflows import tasks
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.train import train
from tests import vision_base
from tests.train_recipes import train_recipe

pytest.importorskip("PIL.Image", reason="Pillow is not installed")

HARVEST = HarvestRecipe(steps=40, batch_size=6, learning_rate=1e-2, keep=1, save_every=20, rank=2)
TRAIN = train_recipe(
    steps=200, batch_size=8, learning_rate=3e-3, hidden_dim=48, code_dim=16, latent_dim=4, save_every=100,
    vectors=VectorRecipe(draws=2, shots=2, layer=1.0),
)  # fmt: skip
METHODS = EvalRecipe(methods=("base", "in-context", "generated", "generated-shots", "harvested"), resamples=100)
TEXTS = {"find_cat": "Find the cat.", "find_dog": "Locate every dog."}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_base.florence(tmp_path_factory.mktemp("florence") / "tiny")


def register(home: Home, folder: Path) -> tuple[Task, ...]:
    folder.mkdir(exist_ok=True)
    lines = ["tasks:"]
    for number in range(30):
        (folder / f"{number}.png").write_bytes(vision_base.image_bytes(number))
    for name, text in TEXTS.items():
        label = name.removeprefix("find_")
        lines += [
            f"- name: {name}",
            f"  descriptions: [{text}, Where is the {label}?]",
            "  metric: map50_95",
            "  examples:",
        ]
        lines += [
            f"  - {{image: {number}.png, input: <OD>, boxes: [{{label: {label}, box: [2, 2, 12, 12]}}]}}"
            for number in range(30)
        ]
    (folder / "tasks.yaml").write_text("\n".join(lines) + "\n")
    return tuple(task for task, _ in tasks.add(home, [str(folder / "tasks.yaml")]).tasks)


def test_the_whole_way(folder: Path, home: Home, tmp_path: Path) -> None:
    base = pull(str(folder), home, offline=True)
    found = register(home, tmp_path / "data")
    harvest.run(found, base, HARVEST, home, device="cpu")
    trained = train.run(found, base, TRAIN, home, device="cpu")
    text = TEXTS["find_cat"]
    made = generate.run(text, tmp_path / "out", GenRequest(trained.folder), base, home, device="cpu")
    generate.run(text, tmp_path / "model", GenRequest(trained.folder, merged=True), base, home, device="cpu")
    AutoProcessor.from_pretrained(tmp_path / "model")
    loaded = load_base(base, device="cpu")
    row = loaded.family.row("<OD>", "cat", found[0].examples("test")[0].picture)
    inputs = loaded.batch([row]).inputs
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    plain = loaded.model(**inputs).logits
    adapted = PeftModel.from_pretrained(loaded.model, str(made.folder)).merge_and_unload()
    assert torch.allclose(adapted(**inputs).logits, whole(**inputs).logits, atol=1e-4)
    assert not torch.allclose(plain, whole(**inputs).logits, atol=1e-2)
    done = evaluate.run(found, base, EvalRequest(METHODS, trained.folder), home, device="cpu")
    result = done.result
    shown = {item.picture for score in result.scores for item in score.outputs}
    assert shown == set(result.pictures) and len(shown) > 1
    assert {(item.width, item.height) for item in result.pictures.values()} == {(40, 30)}
    assert next(iter(result.pictures.values())).uri in (done.folder / "report.html").read_text(encoding="utf-8")
    for task in TEXTS:
        of_base, generated, shown, harvested = (
            result.score(task, method).figures["nll"].value
            for method in ("base", "generated", "generated-shots", "harvested")
        )
        assert harvested < of_base - 0.5 and generated < of_base - 0.3 and shown < of_base - 0.3
        figures = result.score(task, "harvested").figures
        assert {"exact_match", "f1", "nll", "map50_95", "map50", "map75"} <= set(figures)
        assert 0 <= figures["map50_95"].low <= figures["map50_95"].value <= figures["map50"].value <= 1
        assert "one image" in str(result.score(task, "in-context").reason)


def test_a_base_without_images_says_so(llama_base: Base, home: Home, tmp_path: Path) -> None:
    found = register(home, tmp_path / "data")
    with pytest.raises(UsageError, match="an example has an image, and this base reads text alone"):
        harvest.run(found, llama_base, HARVEST, home, device="cpu")
