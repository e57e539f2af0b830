"""Task files: what is accepted, and that all faults are reported at once."""

from pathlib import Path

import pytest

from icmlora_cli.errors import SpecError, UsageError
from icmlora_cli.tasks.builtin import builtin_names
from icmlora_cli.tasks.task_file import (
    BuiltinSource,
    DatasetSource,
    DomainSource,
    ExampleSpec,
    FileSource,
    TemplateSpec,
    TextDatasetSource,
    TextFileSource,
    TextSpec,
    read_task_file,
)

ONE = "name: t\ndescription: Do it.\nexamples:\n  - {input: a, output: b}\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
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
        (("- {input: a, output: b}", "x.txt"), 3, "examples: these are plain text, which needs template: text"),
        (
            ("- {input: a, output: b}", "x.doc"),
            3,
            "examples: 'x.doc' is none of .jsonl, .ndjson, .json, .csv, .tsv, .parquet",
        ),
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
        (("name: t", "name: t\ntemplate: qaa"), 2, "template: should be 'qa', 'chat', 'text' or 'image', not 'qaa'"),
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
        (("name: t", "name: t\nmetric: bleu"), 2, "metric: should be 'exact_match', 'f1', 'nll', 'map50_95"),
        (
            ("name: t", "name: t\nmetric: perplexity"),
            2,
            "metric: 'perplexity' is a metric of plain text: it needs template",
        ),
    ],
)
def test_one_fault(tmp_path: Path, change: tuple[str, str], line: int, what: str) -> None:
    (found,) = faults(written(tmp_path, ONE.replace(*change)))
    assert found.startswith(f"{line}: {what}")


TEXT = "name: t\ndescription: Do it.\ntemplate: text\nexamples:\n  - {text: a}\n"


def test_plain_text_with_every_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    for name in ("x.jsonl", "x.txt", "books/a.txt"):
        (tmp_path / name).touch()
    text = """
tasks:
- {name: a, description: A, template: text, examples: [{text: 007}, {text: b}]}
- {name: b, description: B, examples: x.txt, template: text, metric: perplexity}
- {name: c, description: C, examples: [x.txt, "books/*.txt", books], template: text}
- {name: d, description: D, examples: {path: x.jsonl, text: body, passage: 500}, template: text}
- {name: e, description: E, examples: {dataset: some/id, config: en, text: body, passage: 500}, template: text}
- {name: f, description: F, examples: {domain: python-manual, count: 9}, template: text}
- {name: g, description: G, examples: {path: books}, template: text}
"""
    a, b, c, d, e, f, g = read_task_file(written(tmp_path, text))
    assert (a.template, a.metric, a.examples) == (
        "text",
        "bits_per_character",
        (TextSpec(text="007"), TextSpec(text="b")),
    )
    assert (b.metric, b.examples) == ("perplexity", ("x.txt",))
    assert c.examples == ("x.txt", "books/*.txt", "books")
    assert d.examples == TextFileSource(path=("x.jsonl",), text="body", passage=500)
    assert e.examples == TextDatasetSource(dataset="some/id", config="en", text="body", passage=500)
    assert f.examples == DomainSource(domain="python-manual", count=9, passage=1000)
    assert g.examples == TextFileSource(path=("books",))


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (("{text: a}", "{text: ''}"), 5, "examples.0.text: is empty"),
        (("{text: a}", "{txt: a}"), 5, "examples.0."),
        (("- {text: a}", "[]"), 4, "examples: is an empty list"),
        (("- {text: a}", "x.txt"), 4, "examples: there is no file 'x.txt' (looked for at"),
        (
            ("- {text: a}", "x.doc"),
            4,
            "examples: 'x.doc' is none of .txt, .jsonl, .ndjson, .json, .csv, .tsv, .parquet, nor a folder",
        ),
        (("- {text: a}", "empty"), 4, "examples: there is no .txt file in 'empty'"),
        (("- {text: a}", "'*.txt'"), 4, "examples: there is no file '*.txt'"),
        (("- {text: a}", "{path: [x.txt]}"), 5, "examples.path.0: there is no file 'x.txt'"),
        (("- {text: a}", "{path: x.txt}"), 5, "examples.path: there is no file 'x.txt'"),
        (
            ("- {text: a}", "{domain: python-manual, passage: 5}"),
            5,
            "examples.passage: should be greater than or equal to 100",
        ),
        (
            ("- {text: a}", "{domain: no-such}"),
            5,
            "examples.domain: there is no domain 'no-such'; the domains are: python",
        ),
        (("- {text: a}", "{builtin: pick_last_of_3}"), 4, "examples: a built-in task is of questions"),
        (("name: t", "name: t\nmetric: exact_match"), 2, "metric: should be 'bits_per_character' or 'perplexity' with"),
        (("template: text", "template: qa"), 4, "examples: these are plain text, which needs template: text"),
        (("template: text", "template: txt"), 3, "template: should be 'qa', 'chat', 'text' or 'image', not 'txt'"),
    ],
)
def test_one_fault_of_plain_text(tmp_path: Path, change: tuple[str, str], line: int, what: str) -> None:
    (tmp_path / "empty").mkdir()
    found = faults(written(tmp_path, TEXT.replace(*change)))
    assert found[0].startswith(f"{line}: {what}"), found


def test_a_name_given_twice_is_a_fault_among_others(tmp_path: Path) -> None:
    task = "- name: t\n  description: D\n  examples: [{input: a, output: b}]\n"
    found = faults(written(tmp_path, f"tasks:\n{task}{task}  nmae: x\n"))
    assert found[0] == "5: tasks.1.name: 't' is taken by the task on line 2"
    assert found[1].startswith("8: tasks.1.nmae: is not a known key; did you mean 'name'?")


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "tasks: []\n", "tasks: 3\n", "tasks: [3]\n"])
def test_files_that_hold_no_task(tmp_path: Path, text: str) -> None:
    assert faults(written(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_task_file(tmp_path / "none.yaml")
