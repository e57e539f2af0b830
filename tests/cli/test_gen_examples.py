"""``icmlora gen --examples``: what is tried, what is kept, and that it is judged on what it was not made with."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from icmlora_cli.weights.adapter import read_adapter
from tests.cli.test_gen import CAT, DOG, WEIGHTS, about, nll, the_generator, write_examples

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

KINDS = ["base", "text", "text and examples", "sample", "harvested", "adapted"]


def kept_of(evidence: dict[str, Any]) -> dict[str, Any]:
    """Return what was kept, which has to be what predicts examples best that it was not made with."""
    tried = evidence["tried"]
    kinds = [item["kind"] for item in tried]
    assert kinds == sorted(kinds, key=KINDS.index) and len(set(kinds[:-3])) == len(kinds[:-3])
    kept: dict[str, Any] = tried[evidence["kept"]]
    assert kept["held_out"] == min(item["held_out"] for item in tried if item["held_out"] is not None)
    return kept


@pytest.mark.parametrize(("count", "folds"), [(2, 2), (3, 3), (20, 3)])
def test_what_predicts_the_examples_best_is_kept(trained: "Registry", count: int, folds: int) -> None:
    examples = write_examples("few.jsonl", "cat", count)
    made = trained.json("gen", DOG, "-o", "out", "--examples", "few.jsonl", "--budget", "600")
    evidence = made["evidence"]
    assert (evidence["examples"], evidence["folds"], evidence["judges"]) == (count, folds, 0)
    assert not evidence["out_of_time"] and made["seed"] is None and made["selection"] is None
    kept, text = kept_of(evidence), evidence["tried"][1]
    assert kept["kind"] in ("sample", "adapted") and kept["held_out"] < text["held_out"] - 0.1  # the text says dog
    _, loaded = the_generator(trained)
    found = nll(loaded, read_adapter(Path("out")), examples[:15])
    assert found == pytest.approx(kept["nll"], abs=1e-3)
    assert nll(loaded, None, examples[:15]) == pytest.approx(evidence["tried"][0]["nll"], abs=1e-4)
    other = write_examples("other.jsonl", "cat", 6, start=500)
    trained.call("gen", DOG, "-o", "text")
    assert nll(loaded, read_adapter(Path("out")), other) < nll(loaded, read_adapter(Path("text")), other)
    assert about("out")["evidence"] == evidence and about("out")["options"]["budget"] == 600
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert f"predicts the {count} given examples best, by cross-validation ({folds} folds)" in card
    trained.call("gen", DOG, "-o", "again", "--examples", "few.jsonl", "--budget", "600")
    assert Path("again", WEIGHTS).read_bytes() == Path("out", WEIGHTS).read_bytes()


def test_one_example_judges_only_what_needs_no_training(trained: "Registry") -> None:
    write_examples("one.jsonl", "cat", 1)
    evidence = trained.json("gen", CAT, "-o", "out", "--examples", "one.jsonl")["evidence"]
    assert [item["kind"] for item in evidence["tried"]] == ["base", "text", "sample"]
    assert all(item["held_out"] is None for item in evidence["tried"]) and evidence["steps"] == evidence["folds"] == 0
    assert evidence["tried"][evidence["kept"]]["nll"] < evidence["tried"][0]["nll"]


def test_other_examples_judge_what_is_made_with_these(trained: "Registry") -> None:
    write_examples("few.jsonl", "cat", 4)
    judges = write_examples("dev.jsonl", "cat", 3, start=900)
    command = ("gen", DOG, "--examples", "few.jsonl", "--select", "dev.jsonl", "--budget", "600")
    made = trained.json(*command, "-o", "out")
    evidence, selection = made["evidence"], made["selection"]
    assert (evidence["folds"], evidence["judges"]) == (0, 3)
    _, loaded = the_generator(trained)
    found = nll(loaded, read_adapter(Path("out")), judges)
    assert found == pytest.approx(kept_of(evidence)["held_out"], abs=1e-3)
    assert found == pytest.approx(selection["candidates"][0]["nll"], abs=1e-5) and len(selection["candidates"]) == 1
    printed = trained.call(*command, "-o", "told").stdout
    assert "judged by 3 others" in printed and "text and examples" in printed and printed.count("kept") == 2


def test_harvested_adapters_are_tried_where_they_are_at_hand(trained: "Registry") -> None:
    recipe = Path("train.yaml").read_text(encoding="utf-8")
    Path("near.yaml").write_text(recipe.replace("network: {", "network: {prior: neighbours, "), encoding="utf-8")
    trained.call("train", "--base", trained.base, "--recipe", "near.yaml", "--name", "near")
    write_examples("few.jsonl", "cat", 4)
    command = ("gen", DOG, "-g", "near", "--examples", "few.jsonl", "--budget", "0.001")
    tried = {item["kind"]: item for item in trained.json(*command, "-o", "out")["evidence"]["tried"]}
    assert "sample" not in tried and tried["harvested"]["detail"] == "always_cat"
    shutil.rmtree(trained.home / "adapters")
    tried = {item["kind"]: item for item in trained.json(*command, "-o", "again")["evidence"]["tried"]}
    assert "harvested" not in tried and tried["sample"]["detail"] == "as for always_cat"


def test_no_time_is_told_and_leaves_what_needs_no_training(trained: "Registry") -> None:
    write_examples("few.jsonl", "cat", 4)
    printed = trained.call("gen", CAT, "-o", "out", "--examples", "few.jsonl", "--budget", "0.001")
    assert "--budget with more seconds" in printed.stderr
    evidence = about("out")["evidence"]
    assert evidence["out_of_time"] and evidence["steps"] <= 1 and len(evidence["tried"]) >= 4
    assert all(item["held_out"] is not None for item in evidence["tried"])


def test_the_gate_asks_for_more_than_the_base_on_what_was_left_out(trained: "Registry") -> None:
    write_examples("few.jsonl", "cat", 4)
    made = trained.json("gen", CAT, "-o", "out", "--gate", "--examples", "few.jsonl", "--budget", "600")
    selection, kept = made["selection"], kept_of(made["evidence"])
    assert selection["candidates"][0]["nll"] == kept["held_out"] < selection["base"]["nll"]
    noise = "".join(
        f'{{"input": "w {index}", "output": "{word}"}}\n' for index, word in enumerate(("q", "zz", "0", "%"))
    )
    Path("noise.jsonl").write_text(noise, encoding="utf-8")
    refused = trained.call("gen", CAT, "-o", "no", "--gate", "--examples", "noise.jsonl", "--budget", "0.001", code=3)
    assert "no better than" in refused.stderr and not Path("no").exists()


def test_passages_of_plain_text_are_evidence_too(trained: "Registry") -> None:
    passages = [f"The capital of {name} is {city}. " * 40 for name, city in (("France", "Paris"), ("Italy", "Rome"))]
    Path("book.txt").write_text("\n\n".join(passages) + "\n", encoding="utf-8")
    made = trained.json("gen", CAT, "-o", "out", "--template", "text", "--examples", "book.txt", "--budget", "600")
    assert made["evidence"]["examples"] == made["evidence"]["folds"] == 2
    kept_of(made["evidence"])
    Path("dev.txt").write_text("The capital of Spain is Madrid. " * 12 + "\n", encoding="utf-8")
    command = ("gen", CAT, "-o", "judged", "--template", "text", "--examples", "book.txt", "--select", "dev.txt")
    evidence = trained.json(*command, "--budget", "600")["evidence"]
    assert evidence["judges"] >= 1 and evidence["folds"] == 0  # --select judges passages too


def test_an_example_that_the_base_cannot_read_is_named(trained: "Registry") -> None:
    Path("long.jsonl").write_text('{"input": "' + "word " * 600 + '", "output": "cat"}\n', encoding="utf-8")
    assert "example 1 has" in trained.call("gen", CAT, "-o", "x", "--examples", "long.jsonl", code=2).stderr
    half = "".join('{"input": "' + f"w{index} " * 90 + '", "output": "cat"}\n' for index in range(3))
    Path("half.jsonl").write_text(half, encoding="utf-8")  # each of them can be read, and not all in one prompt
    evidence = trained.json("gen", CAT, "-o", "y", "--examples", "half.jsonl", "--budget", "600")["evidence"]
    assert evidence["examples"] == 3 and kept_of(evidence)["kind"] != "base"
