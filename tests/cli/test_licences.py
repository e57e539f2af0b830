"""Licences of training data, from the task file to the cards and what is told."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from huggingface_hub import ModelCard

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

CAT, ND, SOURCE = "Always answer with cat.", "CC-BY-ND-4.0", "https://huggingface.co/datasets/some/words"


def train(registry: "Registry", licences: tuple[str | None, str | None]) -> None:
    tasks = json.loads(registry.tasks.read_text(encoding="utf-8"))["tasks"]
    for task, licence in zip(tasks, licences, strict=True):
        task |= {"licence": licence, "source": SOURCE}
    registry.tasks.write_text(yaml.safe_dump({"tasks": tasks}), encoding="utf-8")
    registry.call("task", "add", "tasks.yaml")
    registry.call("harvest", "--base", registry.base, "--recipe", "harvest.yaml")


def test_a_licence_that_forbids_derivatives_is_told_at_every_step(empty: "Registry") -> None:
    train(empty, (ND, None))
    trained = empty.call("train", "--base", empty.base, "--recipe", "train.yaml")
    assert f"warning: data that the generator learned from forbid derivatives: {ND};" in trained.stderr
    again = empty.call("train", "--base", empty.base, "--recipe", "train.yaml", "--json")
    assert json.loads(again.stdout)["no_derivatives"] == [ND] and "warning: data" in again.stderr
    made = empty.call("gen", CAT, "-o", "out", "--json")
    assert json.loads(made.stdout)["no_derivatives"] == [ND] and "warning: data" in made.stderr
    Path("texts.txt").write_text(f"{CAT}\nAlways answer with dog.\n", encoding="utf-8")
    assert empty.call("gen", "--batch", "texts.txt", "-o", "many").stderr.count("warning: data") == 1
    empty.call("gen", CAT, "-o", "whole", "--merge")
    assert json.loads(Path("out/icmlora.json").read_text(encoding="utf-8"))["no_derivatives"] == [ND]
    generator = empty.home / "generators" / "default"
    for folder in (generator, Path("out"), Path("whole"), *Path("many").iterdir()):
        card = ModelCard.load(folder / "README.md")
        assert f"Forbids derivatives: `{ND}`." in card.text
        assert (card.data.license, card.data.license_name) == ("other", "cc-by-nd-4.0-and-unstated")
        assert card.data.datasets == ["some/words"]
    assert {item.name for item in Path("many").iterdir()} == {"always-answer-with-cat", "always-answer-with-dog"}


def test_a_licence_that_all_data_share_is_the_cards(empty: "Registry") -> None:
    train(empty, ("MIT", "mit"))
    trained = empty.json("train", "--base", empty.base, "--recipe", "train.yaml")
    assert trained["no_derivatives"] == []
    made = empty.call("gen", CAT, "-o", "out")
    assert "warning" not in made.stderr
    assert ModelCard.load("out/README.md").data.license == "mit"
