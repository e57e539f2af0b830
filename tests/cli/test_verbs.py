"""The way from a task file to an adapter and its scores, through the commands; what each prints is pinned."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.tasks import TaskStore

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

ADAPTER = {
    "schema", "task", "key", "base", "weight_hash", "data_hash", "created", "checkpoints", "figures", "about",
    "folder", "bytes",
}  # fmt: skip
TRAINED = {
    "schema", "folder", "tasks", "trained", "width", "codec_error", "error", "parameters", "bytes", "seconds", "name",
    "harvested", "builtin", "epochs", "flat", "left_out", "validation", "storage_error", "no_derivatives", "replaced",
}  # fmt: skip
GENERATED = {
    "schema", "folder", "task_text", "merged", "format", "rank", "bytes", "seconds", "seed", "dtype", "scale", "error",
    "shown", "selection", "evidence", "explanation", "no_derivatives", "notes",
}  # fmt: skip
EVALUATED = {
    "schema", "folder", "base", "generator", "protocol", "methods", "scores", "means", "text_specific", "lm_eval",
    "scored", "seconds", "unrelated",
}  # fmt: skip
SCORE = {"task", "part", "method", "figures", "unrelated", "reason"}
METHODS = "base,described,average,swapped-text,generated,harvested"
STORED = {"schema", "bases", "tasks", "adapters", "adapter_bytes", "formats", "generators", "bytes", "duplicates", "gc"}
NAMES = ["always_cat", "always_dog"]


def test_the_whole_way_as_json(empty: "Registry") -> None:
    base = ("--base", empty.base)
    added = empty.json("task", "add", "tasks.yaml")
    assert added["schema"] == "icmlora.task.add/1" and [task["name"] for task in added["tasks"]] == NAMES

    harvested = empty.json("harvest", *base, "--recipe", "harvest.yaml", "--steps", "8")
    assert set(harvested) == {"schema", "base", "trained", "seconds", "adapters"}
    assert harvested["schema"] == "icmlora.harvest/1" and harvested["trained"] == NAMES
    assert all(set(item) == ADAPTER and item["about"]["recipe"]["steps"] == 8 for item in harvested["adapters"])
    assert empty.json("harvest", *base, "--recipe", "harvest.yaml", "--steps", "8")["trained"] == []

    trained = empty.json("train", *base, "--recipe", "train.yaml")
    assert set(trained) == TRAINED and trained["schema"] == "icmlora.train/1"
    assert trained["tasks"] == NAMES and trained["trained"] is True and trained["name"] == "default"

    made = empty.json("gen", "Say cat.", "-o", "out")
    assert set(made) == GENERATED and made["schema"] == "icmlora.gen/1"
    assert (made["task_text"], made["merged"], made["rank"], made["seed"]) == ("Say cat.", False, 8, None)
    assert Path(made["folder"], "adapter_model.safetensors").is_file()
    whole = empty.json("gen", "Say cat.", "-o", "whole", "--merge", "--seed", "3")
    assert whole["merged"] is True and whole["seed"] == 3 and Path("whole", "model.safetensors").is_file()

    scored = empty.json("eval", *base, "--limit", "2", "--methods", METHODS)
    assert set(scored) == EVALUATED and scored["schema"] == "icmlora.eval/2"
    assert scored["methods"] == METHODS.split(",")
    assert len(scored["scores"]) == scored["scored"] == 2 * len(scored["methods"])
    assert all(set(cell) == SCORE and cell["part"] == "seen" for cell in scored["scores"])
    assert all(set(cell["figures"]) == {"exact_match", "f1", "nll"} for cell in scored["scores"])
    assert Path(scored["folder"]) == empty.home / "results" / "default-bare"
    written = json.loads(Path(scored["folder"], "result.json").read_text(encoding="utf-8"))
    assert written["means"] == scored["means"] and written["recipe"]["limit"] == 2
    again = empty.json("eval", *base, "--limit", "2", "--methods", METHODS)
    assert again["scored"] == 0 and again["scores"] == scored["scores"]

    stored = empty.json("storage")
    assert set(stored) == STORED and stored["schema"] == "icmlora.storage/1"
    assert [item["task"] for item in stored["adapters"]] == NAMES
    assert [(item["rank"], item["dtype"], item["tasks"]) for item in stored["formats"]] == [("8", "fp32", 2)]
    assert [item["name"] for item in stored["generators"]] == ["default"]
    assert stored["generators"][0]["bytes"] == trained["bytes"]


def test_adapters(trained: "Registry") -> None:
    listed = trained.json("adapter", "list")
    assert listed["schema"] == "icmlora.adapter.list/1" and [item["task"] for item in listed["adapters"]] == NAMES
    shown = trained.json("adapter", "show", "always_cat")
    assert shown["schema"] == "icmlora.adapter.show/1" and shown["adapters"] == listed["adapters"][:1]
    assert len(shown["adapters"][0]["checkpoints"]) == 2
    assert "--yes" in trained.call("adapter", "remove", "always_cat", code=2).stderr
    removed = trained.json("adapter", "remove", "always_cat", "--yes")
    assert set(removed) == {"schema", "task", "key", "freed"} and removed["freed"] > 0
    assert [item["task"] for item in trained.json("adapter", "list")["adapters"]] == NAMES[1:]
    assert "icmlora harvest" in trained.call("adapter", "show", "always_cat", code=1).stderr
    again = trained.json("harvest", "--base", trained.base, "--recipe", "harvest.yaml")
    assert again["trained"] == NAMES[:1] and again["adapters"][0]["key"] == shown["adapters"][0]["key"]


def test_remove_stays_within_a_task(trained: "Registry") -> None:
    for name in ("..", ".", "*", "always_*", "a/../../..", ""):
        trained.call("adapter", "remove", name, "--yes", code=2)
    assert len(trained.json("adapter", "list")["adapters"]) == 2
    assert len(trained.json("task", "list")["tasks"]) == 2


def test_recipes(empty: "Registry") -> None:
    listed = empty.json("recipe", "list")
    assert listed["schema"] == "icmlora.recipe.list/1" and {"harvest/default", "train/default"} <= set(
        listed["recipes"]
    )
    for name in listed["recipes"]:
        kind = name.partition("/")[0]
        checked = empty.json("recipe", "validate", name, "--kind", kind)
        assert set(checked) == {"schema", "name", "kind", "values"}
        assert checked["values"]["tasks"] if kind in ("tasks", "lists") else checked["values"]["seed"] == 0
    shown = empty.json("recipe", "show", "train/default")
    assert set(shown) == {"schema", "name", "path", "text"}
    assert empty.call("recipe", "show", "train/default").stdout.strip() == shown["text"].strip()
    assert empty.json("recipe", "copy", "train/default", "mine.yaml") == {
        "schema": "icmlora.recipe.copy/1", "path": "mine.yaml",
    }  # fmt: skip
    assert Path("mine.yaml").read_text(encoding="utf-8") == shown["text"]
    Path("mine.yaml").write_text("steps: 7\n", encoding="utf-8")
    assert "--force" in empty.call("recipe", "copy", "train/default", "mine.yaml", code=1).stderr
    assert empty.json("recipe", "validate", "mine.yaml", "--kind", "harvest")["values"]["steps"] == 7


def test_quiet_prints_the_bare_result(trained: "Registry") -> None:
    def quiet(*arguments: object) -> str:
        result = trained.call(*arguments, "--quiet")
        assert result.stderr == ""
        return result.stdout

    again = quiet("harvest", "--base", trained.base, "--recipe", "harvest.yaml").splitlines()
    assert [line.split("\t")[0] for line in again] == NAMES
    folder = quiet("train", "--base", trained.base, "--recipe", "train.yaml").removesuffix("\n")
    assert folder == str(trained.home / "generators" / "default")
    assert quiet("gen", "Say dog.", "-o", "out") == "out\n"
    command = ("eval", "--base", trained.base, "--limit", "1", "--methods", METHODS)
    rows = [line.split("\t") for line in quiet(*command).splitlines()]
    assert {row[0] for row in rows} >= {*NAMES, *METHODS.split(",")}
    assert rows[-1] == [str(trained.home / "results" / "default-bare")]
    assert [line.split("\t")[0] for line in quiet("adapter", "list").splitlines()] == NAMES
    assert int(quiet("adapter", "remove", "always_cat", "--yes")) > 0


def test_a_base_is_the_same_under_each_spelling_of_its_folder(trained: "Registry") -> None:
    Path("here").symlink_to(trained.base)
    for spelling in (f"{trained.base}/", "here", "./here"):
        assert trained.json("train", "--base", spelling, "--recipe", "train.yaml")["trained"] is False


def test_progress_and_hints_go_to_stderr(trained: "Registry") -> None:
    """A process of its own shows that no library writes to stdout behind Python's back."""
    done = trained.process("harvest", "--base", trained.base, "--recipe", "harvest.yaml", "--seed", "1", "--json")
    assert done.returncode == 0 and done.stderr == "2 trained, 0 were there already\nnext: icmlora train\n"
    assert json.loads(done.stdout)["trained"] == NAMES
    result = trained.call("harvest", "--base", trained.base, "--recipe", "harvest.yaml", "--seed", "2")
    assert "[1/2] harvest always_cat: 20/20" in result.stderr and "next: icmlora train" in result.stderr
    assert "20/20" not in result.stdout and "next:" not in result.stdout


def test_home_of_one_command(empty: "Registry") -> None:
    empty.call("--home", "elsewhere", "task", "add", "tasks.yaml")
    assert list(TaskStore(Home(Path("elsewhere").absolute(), Path("cache"))).names()) == NAMES
    assert not empty.home.exists()
