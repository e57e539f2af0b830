"""``icmlora gen --batch``: a folder for each text, resumable; texts and names stay what they are."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.base.pull import resolve
from icmlora_cli.workflows.gen import batch
from icmlora_cli.workflows.gen.generate import base_name
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.progress import Progress
from tests.cli.test_gen import CAT, WEIGHTS, about, write_examples

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

WICKED = ("../../etc/passwd", "$(rm -rf ~) `id`", "<script>alert(1)</script>", "-o /tmp/x --force")
ENTRY = {"name", "task_text", "folder", "state", "result", "reason"}


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_folder_for_each_text(trained: "Registry") -> None:
    Path("texts.txt").write_text(f"{CAT}\n\n  Say  dog. \r\n" + "\n".join(WICKED), encoding="utf-8")
    before = {path.name for path in trained.root.iterdir()}
    done = trained.json("gen", "--batch", "texts.txt", "-o", "out", "--seed", "3")
    assert done["schema"] == "icmlora.gen.batch/1" and set(done) == {"schema", "folder", "seconds", "entries", "notes"}
    assert all(set(entry) == ENTRY and entry["state"] == "written" for entry in done["entries"])
    assert [entry["task_text"] for entry in done["entries"]] == [CAT, "Say dog.", *WICKED]
    names = [entry["name"] for entry in done["entries"]]
    assert names[:3] == ["always-answer-with-cat", "say-dog", "etc-passwd"]
    assert {path.name for path in Path("out").iterdir()} == set(names)
    assert {path.name for path in trained.root.iterdir()} == before | {"out"}
    for entry in done["entries"]:
        assert about(entry["folder"])["task_text"] == entry["task_text"]
    trained.call("gen", CAT, "-o", "one", "--seed", "3")
    assert Path("one", WEIGHTS).read_bytes() == Path("out", names[0], WEIGHTS).read_bytes()
    assert set(about("one")) == set(about(f"out/{names[0]}"))


def test_a_batch_goes_on_where_it_was(trained: "Registry") -> None:
    rows = [{"name": "one", "text": CAT}, {"name": "two", "text": "Say dog."}, {"text": "Say 🐈 twice."}]
    Path("texts.json").write_text(json.dumps(rows, indent="\t"), encoding="utf-8")
    folder, home = trained.home / "generators" / "default", Home.from_environment()
    base = resolve(str(base_name(folder)), home, offline=True)

    def stop(progress: Progress) -> None:
        if progress.items_done == 1 and progress.label == "two: make":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.run(Path("texts.json"), Path("out"), GenRequest(folder), base, home, device="cpu", on_progress=stop)
    assert [path.name for path in Path("out").iterdir()] == ["one"]
    first = stamps(Path("out"))
    done = trained.json("gen", "--batch", "texts.json", "-o", "out")
    assert [entry["state"] for entry in done["entries"]] == ["unchanged", "written", "written"]
    assert done["entries"][0]["result"] is None and done["entries"][2]["task_text"] == "Say 🐈 twice."
    assert stamps(Path("out/one")) == {name.removeprefix("one/"): value for name, value in first.items()}

    trained.call("gen", CAT, "-o", "out/one", "--force")  # by itself it is the same
    assert trained.call("gen", "--batch", "texts.json", "-o", "out", "--quiet").stdout == (
        "unchanged\tout/one\nunchanged\tout/two\n" + f"unchanged\t{done['entries'][2]['folder']}\n"
    )
    whole = stamps(Path("out"))
    refused = trained.call("gen", "--batch", "texts.json", "-o", "out", "--seed", "1", code=1)
    assert "3 of the folders" in refused.stderr and "--force" in refused.stderr
    assert stamps(Path("out")) == whole
    Path("out/two", WEIGHTS).unlink()  # half of it is not it
    again = trained.json("gen", "--batch", "texts.json", "-o", "out", "--force")
    assert [entry["state"] for entry in again["entries"]] == ["unchanged", "written", "unchanged"]
    forced = trained.json("gen", "--batch", "texts.json", "-o", "out", "--seed", "1", "--force")
    assert [entry["state"] for entry in forced["entries"]] == ["written"] * 3
    assert about("out/one")["seed"] == 1


def test_what_is_not_ours_stays(trained: "Registry") -> None:
    Path("texts.yaml").write_text(f"- {{name: mine, text: {CAT}}}\n- {{name: other, text: Say dog.}}\n")
    Path("out/mine").mkdir(parents=True)
    Path("out/mine/thesis.txt").write_text("years of work", encoding="utf-8")
    for options in ((), ("--force",)):
        trained.call("gen", "--batch", "texts.yaml", "-o", "out", *options, code=1)
        assert Path("out/mine/thesis.txt").read_text(encoding="utf-8") == "years of work"
        assert not Path("out/other").exists()
    Path("letter").write_text("Dear", encoding="utf-8")
    assert "is a file" in trained.call("gen", "--batch", "texts.yaml", "-o", "letter", code=1).stderr


def test_the_gate_refuses_some_of_a_batch(trained: "Registry") -> None:
    write_examples("dev.jsonl", "cat", 3)
    for task in ("always_cat", "always_dog"):
        trained.call("adapter", "remove", task, "--yes")
    Path("texts.txt").write_text(f"{CAT}\nWrite cat.\n", encoding="utf-8")
    command = ("gen", "--batch", "texts.txt", "-o", "out", "--select", "dev.jsonl", "--samples", "2", "--gate")
    refused = trained.json(*command, "--scale", "-1", code=3)
    assert [entry["state"] for entry in refused["entries"]] == ["refused"] * 2
    assert all("no better than the base" in entry["reason"] for entry in refused["entries"])
    assert not Path("out").exists() or not any(Path("out").iterdir())
    printed = trained.call(*command)
    assert printed.stderr.count("none of the 2 adapters") == 1
    assert printed.stdout.count("written: ") == 2 and "NLL" in printed.stdout
