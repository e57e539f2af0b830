"""Wicked words, in task files, manifests, names and on the command line, end as text: nowhere do they do anything."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from icmlora_cli.cli.app import app
from icmlora_cli.disk import checksums
from icmlora_cli.report.html import html_report
from icmlora_cli.report.tables import markdown
from icmlora_cli.tasks.task_text import checked_text
from tests.report.samples import sample

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

WICKED = (
    "../../../x",
    "/etc/passwd",
    "C:\\windows\\x",
    "nul\x00byte",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "\x9b31mC1\x85\x7f",
    "[click](http://evil.example) ![x](http://evil.example/x.png)",
    "```\nfence\n```\n# heading",
    "--- licence: mit",
    "---\nlicense: mit\n---",
    "a: b: c\n- d",
    "!!python/object/apply:os.system ['true']",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}${HOME} $(id) `id`",
    "\u202egnp.exe\u2066",
    "\u2028line\u2029",
    "'; DROP TABLE x; -- \"",
    "word " * 390,
    "%s %d {0} {x!r}",
)
SAFE = ("code_block", "fence", "code_inline")


def raw(text: str) -> list[str]:
    """Return what of a text would steer a terminal; newlines and tabs do not."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", text)


def outside_of_code(card: str) -> Iterator[tuple[str, str]]:
    """Yield kind and content of every token of a card that is not code."""
    for token in MarkdownIt("commonmark").parse(card):
        for inner in token.children or [token]:
            if inner.type not in SAFE:
                yield inner.type, f"{inner.content}{inner.attrs or ''}"


def check_card(path: Path, texts: tuple[str, ...]) -> None:
    card = ModelCard.load(path)
    front = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
    assert front == card.data.to_dict()
    assert card.data.license in {"other", "unknown"} and set(front) <= {
        *("library_name", "license", "license_name", "pipeline_tag", "tags", "datasets"),
    }  # the base is a folder
    shown = list(outside_of_code(card.text))
    assert not {"link_open", "image", "html_inline", "html_block"} & {kind for kind, _ in shown}
    for text in texts:
        words = max(re.findall(r"[\w:/.!\[\]()<>{}%$ ]+", text), key=len).strip()
        assert len(words) < 4 or not any(words in content for _, content in shown)
    assert not raw(card.content)


def test_wicked_texts_of_a_batch(trained: "Registry") -> None:
    texts = [text for text in WICKED if text.strip()]
    Path("texts.json").write_text(json.dumps([{"text": text} for text in texts]), encoding="utf-8")
    before = sorted(path for path in trained.root.rglob("*") if "out" not in path.parts)
    done = trained.call("gen", "--batch", "texts.json", "-o", "out", "--json")
    assert not raw(done.stdout) and not raw(done.stderr)
    entries = json.loads(done.stdout)["entries"]
    assert [entry["task_text"] for entry in entries] == [checked_text(text) for text in texts]
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,99}", entry["name"]) and Path(entry["folder"]).parent == Path("out")
        about = json.loads(Path(entry["folder"], "icmlora.json").read_text(encoding="utf-8"))
        assert about["task_text"] == entry["task_text"]
        check_card(Path(entry["folder"], "README.md"), (entry["task_text"],))
    assert {path.name for path in Path("out").iterdir()} == {entry["name"] for entry in entries}
    after = sorted(path for path in trained.root.rglob("*") if "out" not in path.parts)
    assert [path for path in after if path not in before and "vectors" not in path.parts] == []
    again = trained.call("gen", "--batch", "texts.json", "-o", "out")
    assert "unchanged" in again.stdout and not raw(again.stdout + again.stderr)


def test_wicked_names_in_a_batch_are_refused(trained: "Registry") -> None:
    rows = [{"text": f"Say {index}.", "name": name} for index, name in enumerate(WICKED)]
    Path("texts.json").write_text(json.dumps(rows), encoding="utf-8")
    for flags in ([], ["--json"]):
        done = trained.call("gen", "--batch", "texts.json", "-o", "out", *flags, code=2)
        assert not raw(done.stdout + done.stderr)
        assert done.stderr.count("cannot be a folder's name") == len(WICKED)
    assert not Path("out").exists()


def test_wicked_manifest_and_folder_of_a_generator(trained: "Registry") -> None:
    folder = trained.root / "g`<b>[x](http:y)\x1b[31m \u202e # {{ 7 * 7 }}"
    (trained.home / "generators" / "default").rename(folder)
    path = folder / "generator.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    about |= {
        "licences": [*WICKED, "CC-BY-ND-4.0\x1b[31m"],
        "datasets": [*WICKED, "good/one"],
        "cost": {"train_seconds": 1.0},
        "tasks": dict(zip(about["tasks"], WICKED[4:6], strict=True)),
    }
    checksums.write_manifest(path, about)
    made = trained.call("gen", "Say \x1b[31mcat.", "-o", "out", "--generator", folder, "--explain")
    assert "forbid derivatives: CC-BY-ND-4.0\\x1b[31m;" in made.stderr
    whole = trained.call("gen", "Say cat.", "-o", "whole", "--generator", folder, "--merge", "--json")
    quiet = trained.call("gen", "Say cat.", "-o", "third", "--generator", folder, "--explain", "--quiet")
    assert not any(raw(done.stdout + done.stderr) for done in (made, whole, quiet))
    for name in ("out", "whole"):
        check_card(Path(name, "README.md"), (*WICKED, folder.name))
        assert ModelCard.load(Path(name, "README.md")).data.datasets == ["good/one"]
    assert json.loads(Path("out/icmlora.json").read_text(encoding="utf-8"))["generator"]["name"] == folder.name


def test_wicked_words_of_a_task_file_from_add_to_the_cards(empty: "Registry") -> None:
    tasks = json.loads(empty.tasks.read_text(encoding="utf-8"))["tasks"]
    wicked = [text for text in WICKED if "\x00" not in text]
    for task, text in zip(tasks, ("\x1b[31m", "\u202e"), strict=True):
        task |= {"licence": text + " | ".join(wicked), "source": text + " ".join(wicked), "metric": "exact_match"}
        task["descriptions"] = [*task["descriptions"], *(f"{text}{item}" for item in wicked)]
    empty.tasks.write_text(yaml.safe_dump({"tasks": tasks}), encoding="utf-8")
    told = ""
    for command in (("add", "tasks.yaml"), ("list",), ("show", "always_cat"), ("preview", "always_dog")):
        for flags in ((), ("--json",), ("--quiet",)):
            done = empty.call("task", *command, *flags)
            told += done.stdout + done.stderr
    rows = empty.call("task", "show", "always_cat", "--quiet").stdout.splitlines()
    assert all("\t" in row for row in rows)  # no text makes a row of its own
    done = empty.call("harvest", "--base", empty.base, "--recipe", "harvest.yaml")
    told += done.stdout + done.stderr
    done = empty.call("train", "--base", empty.base, "--recipe", "train.yaml")
    told += done.stdout + done.stderr
    done = empty.call("gen", tasks[0]["descriptions"][-2], "-o", "out", "--explain")
    assert not raw(told + done.stdout + done.stderr)
    for folder in (empty.home / "generators" / "default", Path("out")):
        check_card(folder / "README.md", tuple(wicked))


@pytest.mark.parametrize("text", ["../../x", "a\x1b[31m", "a\nb", "<script>", "{{ 7*7 }}", "x" * 101, "\u202ex"])
def test_wicked_names_are_refused(trained: "Registry", text: str) -> None:
    commands = (
        ("task", "show", text),
        ("adapter", "show", text),
        ("train", "--base", trained.base, "--name", text),
        ("gen", "Say cat.", "-o", "out", "--generator", text),
        ("base", "show", text),
    )
    for command in commands:
        for flags in ((), ("--json",)):
            done = CliRunner().invoke(app, [*map(str, command), *flags])
            assert isinstance(done.exception, SystemExit) and done.exit_code in {1, 2}, command
            assert not raw(done.stdout + done.stderr), command
    assert not (trained.root.parent / "x").exists()


def test_bytes_that_are_no_text_on_the_command_line(trained: "Registry") -> None:
    done = trained.process("gen", "Say \udcff cat.", "-o", "out")
    assert done.returncode == 2 and "surrogate" in done.stderr and "Traceback" not in done.stderr
    done = trained.process("gen", "Say cat.", "-o", "out", "--examples", "gone\udcff.jsonl")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_wicked_words_in_a_result() -> None:
    result = sample()
    tasks = [
        task.model_copy(update={"description": WICKED[index % len(WICKED)], "name": f"t{index}{WICKED[index % 19]}"})
        for index, task in enumerate(result.tasks)
    ]
    made = result.made.model_copy(update={"command": "icmlora eval '\n\n<script>x</script>\n\n`[a](b)' \x1b[31m"})
    page = html_report(result.model_copy(update={"tasks": tuple(tasks), "made": made}))
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert not raw(body) and "<script>" not in body and "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", body)
    table = markdown(result.model_copy(update={"tasks": tuple(tasks), "made": made}))
    assert not raw(table)
    kinds = {kind for kind, _ in outside_of_code(table)}
    assert not {"link_open", "image", "html_inline", "html_block"} & kinds
