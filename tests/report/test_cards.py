"""Cards: valid for the hub, and what a user typed stays text."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from icmlora_cli.manifests.generator import GeneratorAbout, GeneratorBase
from icmlora_cli.report.cards import CardData, adapter_card, generator_card, merged_card
from icmlora_cli.report.markup import quoted

MIT = CardData(licences=["MIT"], datasets=["a/b"])


def adapter(data: CardData = MIT, **changed: object) -> str:
    given = {"base_model": "a/b", "task_text": "x", "generator": "g", "tasks": 3, "seed": 1, "data": data}
    return adapter_card(**(given | changed))  # type: ignore[arg-type]


def merged(data: CardData = MIT) -> str:
    return merged_card(base_model="a/b", task_text="x", generator="g", data=data)


def generator(data: CardData = MIT, **changed: object) -> str:
    given = {"name": "g", "base_model": "a/b", "tasks": {"t": "x"}, "numbers": 3, "error": 0.1, "data": data}
    return generator_card(**(given | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "relation", "library"),
    [(adapter(), "adapter", "peft"), (merged(), "merge", "transformers"), (generator(), None, "icmlora")],
)
def test_metadata(tmp_path: Path, text: str, relation: str | None, library: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.get("base_model_relation"), data.library_name) == ("a/b", relation, library)
    assert (data.license, data.license_name, data.datasets) == ("mit", None, ["a/b"])
    assert data.pipeline_tag == "text-generation" and "icmlora" in data.tags
    assert str(ModelCard(text)) == text  # the client writes it as it reads it


def test_licences_that_differ_or_are_missing() -> None:
    both = ModelCard(adapter(CardData(licences=["MIT", "PSF-2.0"]))).data
    assert (both.license, both.license_name) == ("other", "mit-and-psf-2.0")
    some = adapter(CardData(licences=["MIT"], unlicensed=2))
    assert ModelCard(some).data.license_name == "mit-and-unstated" and "2 of its tasks state no licence." in some
    none = adapter(CardData())
    assert ModelCard(none).data.license == "unknown" and "The training data states no licence." in none


@pytest.mark.parametrize("make", [adapter, merged, generator])
def test_a_licence_that_forbids_derivatives_is_told(make: object) -> None:
    assert callable(make)
    told = make(CardData(licences=["CC-BY-ND-4.0", "MIT"]))
    assert "Forbids derivatives: `CC-BY-ND-4.0`." in told and "Forbids" not in make(MIT)


def test_a_base_that_is_a_folder_is_not_in_the_metadata() -> None:
    data = ModelCard(adapter(base_model="/home/me/my model")).data
    assert data.base_model is None and data.get("base_model_relation") is None


def test_what_a_manifest_says_of_the_data() -> None:
    held = GeneratorAbout(
        key="k",
        base=GeneratorBase(name="b", weight_hash="w"),
        tasks={},
        licences=("MIT",),
        datasets=("a/b", "../c", "d\n---/e"),
    )
    assert CardData.of(held) == CardData(("MIT",), 0, ("a/b",), {})


def test_a_card_keeps_task_text_as_text() -> None:
    text = "Say <script>x</script>\n---\nlicense: evil `code`"
    card = adapter(task_text=text)
    assert quoted(text) in card.splitlines()
    assert "license: evil" not in card.splitlines() and card.count("\n---\n") == 1


def test_what_a_generator_cost() -> None:
    def told(cost: dict[str, float]) -> str:
        return adapter(CardData(cost=cost))

    known = {"harvest_seconds": 3600.0, "harvest_joules": 54321.0, "train_seconds": 9.6}
    assert "Harvesting its adapters took 3,600 s and 54.3 kJ, training the generator took 10 s." in told(known)
    assert "Training the generator took 10 s.\n" in told({"train_seconds": 9.6})
    assert " took " not in told({})


def test_metadata_is_plain_yaml() -> None:
    front = adapter(CardData(licences=["!!python/object:os.system x", "a: b\n---"])).split("---\n")[1]
    value = yaml.safe_load(front)
    assert value["license"] == "other" and value["license_name"] == "a-b-and-python-object-os.system-x"
