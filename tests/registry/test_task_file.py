"""Task files: what is accepted, and that all faults are reported at once."""

from pathlib import Path

import pytest

from icmlora_cli.errors import SpecFault, UsageFault
from icmlora_cli.registry.builtin import builtin_names
from icmlora_cli.registry.task_file import (
    BuiltinSource,
    DatasetSource,
    ExampleSpec,
    FileSource,
    TemplateSpec,
    read_task_file,
)

ONE = "name: t\ndescription: Do it.\nexamples:\n  - {input: a, output: b}\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(SpecFault) as caught:
        read_task_file(path)
    assert caught.value.exit_code == 2
    assert all(fault.startswith(f"{path}:") for fault in caught.value.faults)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_one_task_at_the_top_with_defaults(tmp_path: Path) -> None:
    (spec,) = read_task_file(written(tmp_path, ONE))
    assert (spec.name, spec.texts, spec.template, spec.metric, spec.split) == (
        "t",
        ("Do it.",),
        "qa",
        "exact_match",
        "train",
    )
    assert spec.examples == (ExampleSpec(input="a", output="b"),)
    assert (spec.splits.validation, spec.splits.test) == (0.1, 0.2)


def test_several_tasks_with_every_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").touch()
    (tmp_path / "x.csv").touch()
    name = builtin_names()[0]
    text = f"""
tasks:
- {{name: a, descriptions: [One., " Two. "], examples: x.jsonl, template: chat, metric: nll, split: unseen}}
- {{name: b, description: B, examples: {{path: x.csv, input: q, output: r}}, splits: {{test: 0.5}}}}
- {{name: c, description: C, examples: {{dataset: some/id, split: test, config: en, limit: 5}}}}
- {{name: d, description: D, examples: {{builtin: {name}, count: 20, seed: 3}}}}
- {{name: e, description: E, examples: [{{input: 1, output: yes}}], licence: CC0, source: me, family: f,
   template: {{prompt: "{{description}} {{input}}", answer: "{{output}}"}}}}
"""
    a, b, c, d, e = read_task_file(written(tmp_path, text))
    assert (a.texts, a.examples, a.template, a.split) == (("One.", "Two."), "x.jsonl", "chat", "unseen")
    assert b.examples == FileSource(path="x.csv", input="q", output="r")
    assert b.splits.test == 0.5
    assert c.examples == DatasetSource(dataset="some/id", split="test", config="en", limit=5)
    assert d.examples == BuiltinSource(builtin=name, count=20, seed=3)
    assert e.examples == (ExampleSpec(input="1", output="yes"),)
    assert e.template == TemplateSpec(prompt="{description} {input}", answer="{output}")
    assert (e.licence, e.source, e.family) == ("CC0", "me", "f")


def test_five_faults_in_one_file(tmp_path: Path) -> None:
    text = """\
tasks:
  - name: not a name
    description: One.
    examples: [{input: a, output: b}]
  - name: two
    examples: [{input: a, output: b}]
    metrics: nll
  - name: three
    description: Three.
    examples: missing.jsonl
    template: {prompt: "{input}", answer: "none"}
"""
    found = faults(written(tmp_path, text))
    assert len(found) == 5
    assert found[0].startswith("2: tasks.0.name: 'not a name' cannot be a task's name")
    assert found[1].startswith("5: tasks.1.descriptions: say what the task is")
    assert found[2] == "7: tasks.1.metrics: is not a known key; did you mean 'metric'?"
    assert found[3].startswith("10: tasks.2.examples: there is no file 'missing.jsonl'")
    assert found[4] == "11: tasks.2.template.answer: does not contain {output}"


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (("a, output: b", "a, output: ''"), 4, "examples.0.output: is empty"),
        (("a, output: b", "a, output: "), 4, "examples.0.output: should be text"),
        (("a, output: b", "a"), 4, "examples.0.output: is missing"),
        (("- {input: a, output: b}", "[]"), 3, "examples: is an empty list"),
        (("- {input: a, output: b}", "5"), 3, "examples: should be a list of examples"),
        (("- {input: a, output: b}", "x.txt"), 3, "examples: 'x.txt' is none of .jsonl, .csv, .parquet"),
        (
            ("- {input: a, output: b}", "{dataset: d, splt: x}"),
            4,
            "examples.splt: is not a known key; did you mean 'split'",
        ),
        (("- {input: a, output: b}", "{dataset: d, limit: 0}"), 4, "examples.limit: should be greater than"),
        (
            ("- {input: a, output: b}", "{builtin: no_such_task_x}"),
            4,
            "examples.builtin: there is no built-in",
        ),
        (("Do it.", "'  '"), 2, "description: String should have at least 1 character"),
        (("Do it.", "x" * 2001), 2, "description: String should have at most 2000"),
        (("Do it.", "A\ndescriptions: [A]"), 3, "descriptions: the same description is given twice: 'A'"),
        (("name: t", "name: 7"), 1, "name: should be text (put it in quotes), not 7"),
        (("name: t", "name: t\ntemplate: qaa"), 2, "template: should be 'qa' or 'chat', not 'qaa'"),
        (
            ("name: t", "name: t\ntemplate: {prompt: x, answer: '{output}'}"),
            2,
            "template.prompt: does not contain",
        ),
        (("name: t", "name: t\nsplits: {test: 0.6, validation: 0.4}"), 2, "splits.test: validation and test"),
        (("name: t", "name: t\nsplits: {test: .nan}"), 2, "splits.test: "),
        (
            ("name: t", "name: t\nsplits: {tset: 0.1}"),
            2,
            "splits.tset: is not a known key; did you mean 'test'?",
        ),
        (("name: t", "name: t\nmetric: bleu"), 2, "metric: should be 'exact_match' or 'nll', not 'bleu'"),
    ],
)
def test_one_fault(tmp_path: Path, change: tuple[str, str], line: int, what: str) -> None:
    (found,) = faults(written(tmp_path, ONE.replace(*change)))
    assert found.startswith(f"{line}: {what}")


def test_a_name_given_twice_is_a_fault_among_others(tmp_path: Path) -> None:
    task = "- name: t\n  description: D\n  examples: [{input: a, output: b}]\n"
    found = faults(written(tmp_path, f"tasks:\n{task}{task}  nmae: x\n"))
    assert found[0] == "5: tasks.1.name: 't' is taken by the task on line 2"
    assert found[1].startswith("8: tasks.1.nmae: is not a known key; did you mean 'name'?")


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "tasks: []\n", "tasks: 3\n", "tasks: [3]\n"])
def test_files_that_hold_no_task(tmp_path: Path, text: str) -> None:
    assert faults(written(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageFault):
        read_task_file(tmp_path / "none.yaml")
