"""``icmlora task``, through its commands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from icmlora_cli.cli.task import app
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.builtin import builtin_names, builtin_task
from icmlora_cli.tasks.splits import PARTS

COMMANDS = ("add", "list", "show", "preview", "validate", "export", "remove", "builtins")
KEYS = {
    "name",
    "descriptions",
    "template",
    "metric",
    "split",
    "splits",
    "licence",
    "source",
    "family",
    "data_hash",
    "counts",
    "examples_sha256",
    "folder",
}


def run(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: str | Path, code: int = 0) -> dict[str, object]:
    value = json.loads(run(*arguments, "--json", code=code).stdout)
    assert isinstance(value, dict)
    return value


def names(value: dict[str, object]) -> list[str]:
    assert isinstance(value["tasks"], list)
    return [task["name"] for task in value["tasks"]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = [json.dumps({"input": f"w {number}", "output": f"{number}"}) for number in range(80)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "tasks:\n"
        "- {name: one, descriptions: [First., Again.], examples: x.jsonl, family: f}\n"
        "- {name: two, description: Second., examples: x.jsonl, template: chat, split: unseen}\n"
        "- {name: three, description: 'Third: \"é\"', examples: x.jsonl, licence: CC0, source: me,\n"
        '   template: {prompt: "{description}\\n{input} ->", answer: " {output}\\n"},\n'
        "   splits: {validation: 0}}\n",
        encoding="utf-8",
    )
    return path


def test_add_and_list(file: Path) -> None:
    value = run_json("add", file)
    assert value["schema"] == "icmlora.task.add/1"
    assert names(value) == ["one", "two", "three"]
    listed = run_json("list")
    assert set(listed) == {"schema", "tasks"}
    assert names(listed) == ["one", "three", "two"]
    assert isinstance(listed["tasks"], list) and set(listed["tasks"][0]) == KEYS
    assert names(run_json("list", "--tasks", "t*")) == ["three", "two"]
    again = run_json("add", file)
    assert isinstance(again["tasks"], list)
    assert {task["state"] for task in again["tasks"]} == {"unchanged"}


def test_text_and_quiet_output(file: Path) -> None:
    added = run("add", file)
    assert "added" in added.stdout and "First." in added.stdout
    assert "3 added\nnext: icmlora harvest" in added.stderr
    assert [line.split("\t")[0] for line in run("list", "--quiet").stdout.splitlines()] == [
        "one",
        "three",
        "two",
    ]
    assert run("add", file, "--quiet").stderr == ""


def test_an_empty_registry(file: Path) -> None:
    assert "icmlora task add" in run("list").stdout
    assert run_json("list")["tasks"] == []
    assert "builtin:*" in run("list", "--tasks", "x", code=1).stderr


def test_five_faults_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: a b\ndescriptin: D\nexamples: none.csv\nmetric: bleu\nsplit: dev\n"
        "template: {prompt: x, answer: '{output}'}\n",
        encoding="utf-8",
    )
    for command in ("add", "validate"):
        stderr = run(command, path, code=2).stderr
        for line in range(1, 7):
            assert f"{path}:{line}: " in stderr
        assert "did you mean 'description'?" in stderr
    error = run_json("validate", path, code=2)["error"]
    assert isinstance(error, dict) and error["kind"] == "SpecError" and error["exit_code"] == 2
    assert run_json("list")["tasks"] == []


def test_nothing_is_written_if_any_task_is_bad(file: Path, tmp_path: Path) -> None:
    (tmp_path / "y.jsonl").write_text('{"input": "a"}\n{"output": "b"}\n', encoding="utf-8")
    bad = tmp_path / "bad.yaml"
    bad.write_text("{name: bad, description: D, examples: y.jsonl}\n", encoding="utf-8")
    worse = tmp_path / "worse.yaml"
    worse.write_text("{name: worse, description: D, examples: [{input: a, output: b}]}\n", encoding="utf-8")
    stderr = run("add", file, bad, worse, tmp_path / "none.yaml", code=2).stderr
    assert "y.jsonl:1: has no 'output'" in stderr and "y.jsonl:2: has no 'input'" in stderr
    assert "task worse: test" in stderr or "task worse: train" in stderr
    assert "none.yaml" in stderr
    assert run_json("list")["tasks"] == []
    assert "given twice" in run("add", file, file, code=2).stderr


def test_taken_names_are_all_told_and_nothing_is_written(file: Path) -> None:
    run("add", file)
    text = file.read_text(encoding="utf-8")
    changed = text.replace("Second.", "2nd.").replace("First.", "1st.").replace("name: three", "name: four")
    file.write_text(changed, encoding="utf-8")
    stderr = run("add", file, code=1).stderr
    assert "2 of 3 tasks" in stderr and "one, two" in stderr and "--force" in stderr
    assert names(run_json("list")) == ["one", "three", "two"]
    run("add", file, "--force")
    assert names(run_json("list")) == ["four", "one", "three", "two"]


def test_a_missing_file(tmp_path: Path) -> None:
    assert "next: " in run("add", tmp_path / "none.yaml", code=2).stderr
    assert f"builtin:{builtin_names()[0]}" in run("add", builtin_names()[0], code=2).stderr


def test_show_and_preview(file: Path) -> None:
    run("add", file)
    shown = run_json("show", "one")
    assert set(shown) == KEYS | {"schema"}
    assert "Again." in run("show", "one").stdout
    preview = run_json("preview", "three", "-n", "2")
    assert isinstance(preview["parts"], dict)
    assert set(preview["parts"]) == set(PARTS)
    assert preview["parts"]["validation"] == []
    first = TaskStore(Home.from_environment()).get("three").examples("test")[0]
    expected = {"prompt": f"\n{first.input} ->", "answer": f" {first.output}\n"}
    assert preview["parts"]["test"][0] == expected and len(preview["parts"]["test"]) == 2
    assert repr(expected["prompt"]) in run("preview", "three").stdout
    assert "tokenizer" in run("preview", "two").stderr
    assert "did you mean three?" in run("show", "thre", code=1).stderr


def test_validate_adds_nothing(file: Path, tmp_path: Path) -> None:
    value = run_json("validate", file)
    assert isinstance(value["files"], list)
    assert list(value["files"][0]["tasks"]) == ["one", "two", "three"]
    assert "no fault" in run("validate", file).stdout
    assert run_json("list")["tasks"] == []
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\n", encoding="utf-8")
    stderr = run("validate", bad, tmp_path / "none.yaml", file, bad, code=2).stderr
    assert "5 faults" in stderr and "none.yaml" in stderr


def test_export_and_add_elsewhere(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", file)
    before = {task.name: task for task in TaskStore(Home.from_environment()).all()}
    target = tmp_path / "out" / "all.yaml"
    value = run_json("export", "*", "-o", target)
    assert value["tasks"] == ["one", "three", "two"]
    assert "--force" in run("export", "one", "-o", target, code=1).stderr
    run("export", "*", "-o", target, "--force")
    assert {task["state"] for task in run_json("add", target)["tasks"]} == {"unchanged"}  # type: ignore[attr-defined]
    monkeypatch.setenv("ICMLORA_HOME", str(tmp_path / "elsewhere"))
    run("add", target)
    after = {task.name: task for task in TaskStore(Home.from_environment()).all()}
    assert {name: task.to_manifest() for name, task in after.items()} == {
        name: task.to_manifest() for name, task in before.items()
    }


def test_remove(file: Path) -> None:
    run("add", file)
    assert "--yes" in run("remove", "t*", code=2).stderr
    assert names(run_json("list")) == ["one", "three", "two"]
    assert run_json("remove", "t*", "--yes")["removed"] == ["three", "two"]
    assert names(run_json("list")) == ["one"]
    run("remove", "two", "--yes", code=1)


def test_a_damaged_task_does_not_hide_the_others(file: Path) -> None:
    run("add", file)
    (Home.from_environment().tasks / "two" / "task.json").write_text("{", encoding="utf-8")
    listed = run("list", "--json")
    assert names(json.loads(listed.stdout)) == ["one", "three"]
    assert "warning: " in listed.stderr and "two" in listed.stderr
    assert "damaged" in run("show", "two", code=1).stderr
    run("remove", "two", "--yes")
    assert run("list").stderr == ""


def test_built_in_tasks() -> None:
    name = builtin_names()[0]
    family = builtin_task(name).family
    of_family = sorted(other for other in builtin_names() if builtin_task(other).family == family)
    assert names(run_json("add", f"builtin:{name}")) == [name]
    assert sorted(names(run_json("add", f"builtin:family:{family}"))) == of_family
    assert names(run_json("list", "--tasks", f"family:{family}")) == of_family
    assert sorted(names(run_json("add", "builtin:*"))) == sorted(builtin_names())
    for wrong in ("builtin:no_such_task", "builtin:family:no_such_family"):
        assert "icmlora task builtins" in run("add", wrong, code=1).stderr
    value = run_json("builtins")
    assert isinstance(value["builtins"], list)
    assert set(value["builtins"][0]) == {"name", "family", "split", "descriptions"}
    assert {row["name"] for row in value["builtins"]} == set(builtin_names())
    assert name in run("builtins").stdout


def test_lists_of_tasks(tmp_path: Path) -> None:
    first, second, third = builtin_names()[:3]
    listed = tmp_path / "few.yaml"
    listed.write_text(f"tasks: [{second}, {first}]\n", encoding="utf-8")
    assert names(run_json("add", f"builtin:@{listed}")) == [second, first]
    run("add", f"builtin:{third}")
    assert names(run_json("list", "--tasks", f"@{listed}")) == sorted([first, second])
    assert names(run_json("list", "--tasks", f"@{listed}", "--tasks", third)) == sorted([first, second, third])
    assert "list of tasks 'no-such-list'" in run("list", "--tasks", "@no-such-list", code=2).stderr
    listed.write_text("tasks: [no_such_task]\n", encoding="utf-8")
    assert "icmlora task builtins" in run("add", f"builtin:@{listed}", code=1).stderr
    run("list", "--tasks", f"@{listed}", code=1)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_the_output_modes(command: str) -> None:
    text = run(command, "--help").stdout
    assert f"Example: icmlora task {command}" in " ".join(text.split())
    assert "--json" in text and "--quiet" in text


def test_plain_text(tmp_path: Path) -> None:
    lines = [json.dumps({"body": f"Passage {number}\n\nof a book."}) for number in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    path = tmp_path / "book.yaml"
    path.write_text("{name: book, description: D, template: text, examples: {path: x.jsonl, text: body}}")
    assert "40 examples, no fault" in run("validate", path).stdout
    (added,) = run_json("add", path)["tasks"]  # type: ignore[misc]
    assert added["metric"] == "bits_per_character" and added["template"]["kind"] == "text"
    assert "bits_per_character" in run("show", "book").stdout
    preview = run("preview", "book", "-n", "1").stdout
    assert "passages\n  text 'Passage " in preview and "prompt" not in preview
    run("export", "book", "-o", tmp_path / "out" / "mine.yaml")
    first = (tmp_path / "out" / "mine-examples" / "book.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert set(json.loads(first)) == {"text"}
    (again,) = run_json("add", tmp_path / "out" / "mine.yaml")["tasks"]  # type: ignore[misc]
    assert (again["state"], again["data_hash"]) == ("unchanged", added["data_hash"])
    run("remove", "book", "--yes")
    assert run_json("list")["tasks"] == []


def test_a_task_file_that_ships_with_icmlora(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from icmlora_cli.workflows import tasks

    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "small.yaml").write_text(
        "{name: manual, description: D, template: text, examples: {domain: python-manual, count: 40}}"
    )
    monkeypatch.setattr(tasks, "recipes_folder", lambda: tmp_path)
    assert names(run_json("add", "tasks/small")) == ["manual"]
    assert "no fault" in run("validate", "tasks/small").stdout
    run("add", "tasks/none", code=2)


def test_what_of_rows_is_not_read_is_told(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {n}.", "input": "", "output": "x", "id": n} for n in range(40)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "x.yaml").write_text("name: t\ndescription: D\nexamples: x.jsonl\n", encoding="utf-8")
    notes = ["t: read as alpaca", "t: not read: id"]
    (checked,) = run_json("validate", tmp_path / "x.yaml")["files"]  # type: ignore[misc]
    assert checked["notes"] == notes
    assert run_json("add", tmp_path / "x.yaml")["notes"] == notes
    shown = run_json("preview", "t", "-n", "1")
    assert (shown["rule"], shown["not_read"]) == ("alpaca", ["id"])
    assert "read as alpaca; not read: id" in run("preview", "t").stdout
    assert "note: t: not read: id" in run("validate", tmp_path / "x.yaml").stderr


def test_names_that_differ_in_their_case_alone(file: Path, tmp_path: Path) -> None:
    rows = "examples: [" + ", ".join(f"{{input: a{n}, output: b}}" for n in range(40)) + "]"
    text = "tasks:\n" + "".join(f"- name: {name}\n  description: D\n  {rows}\n" for name in ("abc", "Abc"))
    (tmp_path / "two.yaml").write_text(text, encoding="utf-8")
    assert "case does not count" in run("add", tmp_path / "two.yaml", code=2).stderr
