"""Rows as people have them: each form by its named rule, and nothing dropped in silence."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from icmlora_cli.errors import SpecError, UsageError
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.sources import load_examples, read_examples
from icmlora_cli.tasks.task_file import TaskSpec

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be kind."}
FORMS = {
    "input-output": ({"input": "Hi", "output": "Hello"}, "Hi"),
    "alpaca": ({"instruction": "Greet.", "input": "Hi", "output": "Hello"}, "Greet.\n\nHi"),
    "dolly": ({"instruction": "Greet.", "context": "Hi", "response": "Hello"}, "Greet.\n\nHi"),
    "messages": ({"messages": [SYSTEM, USER, ANSWER]}, "Be kind.\n\nHi"),
    "sharegpt": ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, "Hi"),
    "prompt-completion": ({"prompt": "Hi", "completion": "Hello"}, "Hi"),
    "prompt-response": ({"prompt": "Hi", "response": "Hello"}, "Hi"),
    "question-answer": ({"question": "Hi", "answer": "Hello"}, "Hi"),
    "text-label": ({"text": "Hi", "label": "Hello"}, "Hi"),
}


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_read_by_its_rule(tmp_path: Path, name: str) -> None:
    row, asked = FORMS[name]
    found = read_examples(jsonl(tmp_path / "x.jsonl", row | {"id": 7, "source": "web"}))
    assert found.examples == (Example(asked, "Hello"),)
    assert (found.rule, found.not_read) == (name, ("id", "source"))
    assert found.told()[-1] == "not read: id, source"


@pytest.mark.parametrize("empty", ["", " ", None])
def test_an_alpaca_row_without_input_is_its_instruction(tmp_path: Path, empty: str | None) -> None:
    rows = [{"instruction": "Greet.", "input": empty, "output": "Hello"}, {"instruction": "Part.", "output": "Bye"}]
    assert read_examples(jsonl(tmp_path / "x.jsonl", *rows)).examples == (
        Example("Greet.", "Hello"),
        Example("Part.", "Bye"),
    )


def test_of_several_turns_the_last_answer_is_the_output(tmp_path: Path) -> None:
    more = {"role": "user", "content": "And?"}
    row = {"messages": [SYSTEM, USER, ANSWER, more, {"role": "assistant", "content": "Well.", "weight": 1}, more]}
    found = read_examples(jsonl(tmp_path / "x.jsonl", row))
    assert found.examples == (Example("Be kind.\n\nUser: Hi\nAssistant: Hello\nUser: And?", "Well."),)
    assert found.not_read == ("messages.weight",)
    assert found.told() == (
        "read as messages",
        "not read: messages.weight",
        "not read: what follows the last answer, in 1 conversations",
    )


def test_turns_in_parts_and_prompts_in_turns(tmp_path: Path) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}
    for row in ({"messages": [parts, ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}):
        assert read_examples(jsonl(tmp_path / "x.jsonl", row)).examples == (Example("Hi", "Hello"),)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ("Hi", "no list of turns"),
        ([], "no list of turns"),
        ([USER], "no turn of the assistant"),
        ([ANSWER], "no turn of the user before"),
        (["Hi", "Hello"], "no mapping"),
        ([{"role": "tool", "content": "x"}, ANSWER], "a turn of 'tool'"),
        ([USER, {"role": "assistant", "content": None}], "is empty"),
        ([{"role": "user", "content": [{"type": "image"}]}, ANSWER], "a part that is not text"),
        ([{"text": "Hi"}, ANSWER], "without role and from"),
    ],
)
def test_a_conversation_that_is_no_example(tmp_path: Path, turns: object, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_examples(jsonl(tmp_path / "x.jsonl", {"messages": turns}, {"messages": turns}))
    (fault,) = caught.value.faults
    assert said in fault and fault.endswith("(2 rows: 1, 2)")


@pytest.mark.parametrize("wrap", [list, lambda rows: {"version": 1, "data": rows}])
def test_a_json_list(tmp_path: Path, wrap: object) -> None:
    rows = [{"input": str(n), "output": "x"} for n in range(3)]
    assert callable(wrap)
    (tmp_path / "x.json").write_text(json.dumps(wrap(rows), indent=1), encoding="utf-8")
    assert len(read_examples(tmp_path / "x.json").examples) == 3
    jsonl(tmp_path / "x.json", *rows)  # JSON lines under the name of JSON
    assert len(read_examples(tmp_path / "x.json").examples) == 3


def test_tables_as_spreadsheets_and_pandas_write_them(tmp_path: Path) -> None:
    long = "long " * 60_000
    for name, delimiter in (("x.csv", ","), ("x.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as handle:
            writer = csv.writer(handle, delimiter=delimiter, lineterminator="\r\n")
            writer.writerows([("", "input", "output"), (0, "a", long), (1, "b,\n\tc", "d")])
        found = read_examples(tmp_path / name)
        assert found.examples == (Example("a", long), Example("b,\n\tc", "d"))
        assert found.told() == ("not read: the column without a name",)


def test_packed_lines(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"input": "a", "output": "b"}\n'))
    assert read_examples(tmp_path / "x.jsonl.gz").examples == (Example("a", "b"),)
    (tmp_path / "x.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(SpecError, match="one fault"):
        read_examples(tmp_path / "x.jsonl.gz")
    with pytest.raises(UsageError, match="none of"):
        read_examples(Path(__file__).with_suffix(".parquet.gz").parent / "test_row_rules.py")


def test_columns_of_the_task_file(tmp_path: Path) -> None:
    jsonl(tmp_path / "x.jsonl", {"q": "Two", "unit": "metres", "a": "2 m", "id": 1})
    columns = {"input": "{q} ({unit})", "output": "a"}
    values = {"name": "t", "description": "D", "examples": {"path": "x.jsonl", "columns": columns}}
    found = load_examples(TaskSpec.model_validate(values), tmp_path, tmp_path / "t.yaml")
    assert found.examples == (Example("Two (metres)", "2 m"),)
    assert (found.rule, found.not_read) == ("columns", ("id",))
    values["examples"] = {"path": "x.jsonl", "columns": columns, "input": "q"}
    with pytest.raises(ValueError, match="say the columns once"):
        TaskSpec.model_validate(values)
    values["examples"] = "x.jsonl"
    with pytest.raises(SpecError) as caught:
        load_examples(TaskSpec.model_validate(values), tmp_path, tmp_path / "t.yaml")
    assert len(caught.value.faults) == 1 and "which are: q, unit, a, id" in caught.value.faults[0]
    assert caught.value.hint is not None and "columns: {input:" in caught.value.hint


def test_a_local_dataset_of_conversations(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "chat").mkdir()
    jsonl(tmp_path / "chat" / "train.jsonl", {"messages": [USER, ANSWER], "id": 1})
    values = {"name": "t", "description": "D", "examples": {"dataset": "chat"}}
    found = load_examples(TaskSpec.model_validate(values), tmp_path, tmp_path / "t.yaml")
    assert (found.examples, found.rule, found.not_read) == ((Example("Hi", "Hello"),), "messages", ("id",))


def test_parquet_of_conversations(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"messages": [[USER, ANSWER]], "id": [1]}), tmp_path / "x.parquet")
    found = read_examples(tmp_path / "x.parquet")
    assert (found.examples, found.rule, found.not_read) == ((Example("Hi", "Hello"),), "messages", ("id",))


def test_a_line_that_is_too_long_and_one_that_is_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"input": "' + "a" * (1 << 24) + '", "output": "b"}\n' + "[" * 500_000 + "\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_examples(path)
    assert caught.value.faults == (
        f"{path}:1: the line is longer than 16 MiB",
        f"{path}:2: not valid JSON: nested too deeply",
    )
