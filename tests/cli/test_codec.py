"""``icmlora codec report``: its JSON keys, its tables, and what it says when something is wrong."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

REPORT = {
    "schema", "base", "basis", "frame_seed", "modules", "checkpoints", "adapters", "widths", "unscored", "seconds",
}  # fmt: skip
MEASURED = {"task", "key", "rank", "modules", "metric", "before"}
WIDTH = {
    "width", "used", "numbers", "basis_bytes", "energy", "worst", "worst_task", "costs", "adapters",
}  # fmt: skip


def test_the_report(trained: "Registry") -> None:
    command = ("codec", "report", "--base", trained.base, "--widths", "16, 2", "--limit", 4, "--device", "cpu")
    value = trained.json(*command)
    assert set(value) == REPORT and value["schema"] == "icmlora.codec.report/1"
    assert (value["basis"], value["frame_seed"], value["unscored"], value["checkpoints"]) == ("learned", None, [], 4)
    assert [item["task"] for item in value["adapters"]] == ["always_cat", "always_dog"]
    assert all(set(item) == MEASURED and item["rank"] == 8 and item["modules"] == 4 for item in value["adapters"])
    narrow, wide = value["widths"]
    assert set(narrow) == set(wide) == WIDTH and (narrow["width"], wide["width"]) == (2, 16)
    assert narrow["energy"] < wide["energy"]
    (cost,) = wide["costs"]
    assert set(cost) == {"metric", "tasks", "before", "after", "kept"} and cost["metric"] == "exact_match"
    assert all(set(item) == {"task", "energy", "after"} for item in wide["adapters"])

    text = trained.call(*command, "--per-task").stdout
    assert "2 adapters (4 checkpoints) in a learned basis of 4 modules" in text
    assert "4 of 4" in text and "exact_match, kept" in text
    quiet = trained.call(*command, "--quiet")
    assert [line.split("\t")[0] for line in quiet.stdout.splitlines()] == ["2", "16"] and quiet.stderr == ""
    listed = trained.call(*command, "--quiet", "--per-task").stdout.splitlines()
    assert [tuple(line.split("\t")[:2]) for line in listed] == [
        ("2", "always_cat"), ("2", "always_dog"), ("16", "always_cat"), ("16", "always_dog"),
    ]  # fmt: skip
    frame = trained.json("codec", "report", "--base", trained.base, "--basis", "frame", "--no-score", "--widths", "3")
    assert (frame["basis"], frame["frame_seed"], frame["widths"][0]["costs"]) == ("frame", 0, [])
    assert frame["widths"][0]["basis_bytes"] == 0


@pytest.mark.parametrize("widths", ["", "4,,8", "0", "4,-1", "4.5", "many", "²", "0" + "9" * 5000])
def test_widths_that_cannot_be(empty: "Registry", widths: str) -> None:
    said = empty.call("codec", "report", "--base", empty.base, "--widths", widths, code=2)
    assert said.stdout == "" and "--widths: " in said.stderr and "next: --widths 4,8" in said.stderr


def test_what_is_missing_is_told(empty: "Registry") -> None:
    base = ("--base", empty.base)
    assert "next: icmlora harvest" in empty.call("codec", "report", *base, code=2).stderr
    empty.call("task", "add", "tasks.yaml")
    assert "next: icmlora harvest" in empty.call("codec", "report", *base, code=2).stderr
    named = empty.json("codec", "report", *base, "--tasks", "always_*", code=1)["error"]
    assert (named["kind"], named["hint"]) == ("NotFoundError", "icmlora harvest --tasks always_cat")
    assert "did you mean always_cat" in empty.call("codec", "report", *base, "--tasks", "always_cta", code=1).stderr
    assert "--basis: " in empty.call("codec", "report", *base, "--basis", "best", code=2).stderr
    empty.call("codec", "report", *base, "--limit", "0", code=2)
