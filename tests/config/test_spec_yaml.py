"""YAML files checked as a whole."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from icmlora_cli.config.spec_yaml import faults_of, load_spec, load_yaml
from icmlora_cli.errors import SpecError, UsageError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    layer: float
    shots: int = 5


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    steps: int = 100


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = 100
    targets: tuple[Inner, ...] = ()
    vectors: Inner = Inner(layer=0.5)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_valid_file_becomes_the_model(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path, "steps: 3\nvectors: {layer: 0.25}\n"), Outer)
    assert (spec.steps, spec.vectors.layer, spec.vectors.shots) == (3, 0.25, 5)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert load_spec(written(tmp_path, text), Outer) == Outer()


def test_all_faults_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "stepz: 3\ntargets:\n  - shots: many\n  - layer: 1\n    shot: 2\n"
    text += "vectors:\n  layer: 0.1\n  color: red\n"
    path = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_spec(path, Outer)
    assert caught.value.exit_code == 2
    starts = [fault.removeprefix(f"{path}:").split(": ", 2)[:2] for fault in caught.value.faults]
    assert starts == [
        ["1", "stepz"],
        ["3", "targets.0.layer"],
        ["3", "targets.0.shots"],
        ["5", "targets.1.shot"],
        ["8", "vectors.color"],
    ]
    assert "did you mean 'steps'?" in caught.value.faults[0]
    assert "did you mean 'shots'?" in caught.value.faults[3]
    assert "known are: layer, shots" in caught.value.faults[4]
    assert "'many'" in caught.value.faults[2]


def test_lines_of_keys_and_list_items(tmp_path: Path) -> None:
    document = load_yaml(written(tmp_path, "a: 1\nb:\n  - c: 2\n  -\n    d: 3\n"))
    assert document.value == {"a": 1, "b": [{"c": 2}, {"d": 3}]}
    assert document.line(("b",)) == 2
    assert document.line(("b", 1, "d")) == 5
    assert document.line(("b", 0, "missing")) == 3


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given twice, first on line 1"),
        ("a: 1\nb: [1, 2\n", 3, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: 2024-13-45\n", 1, "not what it looks like"),
    ],
)
def test_a_file_that_is_no_good_yaml(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_yaml(path)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}:{line}: ")
    assert what in fault


def test_every_duplicate_key_is_listed(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_yaml(written(tmp_path, "a: 1\na: 2\nb:\n  c: 1\n  c: 2\n"))
    assert ["b.c" in fault for fault in caught.value.faults] == [False, True]


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(SpecError) as caught:
        load_yaml(path)
    assert caught.value.faults[0].startswith(f"{path}:2: byte 0xe9")


def test_a_missing_file_says_where_and_what_next(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_yaml(tmp_path / "none.yaml")
    assert caught.value.where == str(tmp_path / "none.yaml")
    assert caught.value.hint
    with pytest.raises(UsageError, match="is a folder"):
        load_yaml(tmp_path)


def test_aliases_neither_loop_nor_explode(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    merged = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
    for text, said in (("a: &x [1, *x]\n", "in itself"), (bomb, "more than 200,000"), (merged, "more than 200,000")):
        with pytest.raises(SpecError) as caught:
            load_yaml(written(tmp_path, text))
        assert said in caught.value.faults[0]
    twice = "a: &x [1, 2]\nb: *x\nc: &y {k: 1}\nd: {<<: *y, l: 2}\n"
    assert load_yaml(written(tmp_path, twice)).value == {"a": [1, 2], "b": [1, 2], "c": {"k": 1}, "d": {"k": 1, "l": 2}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 0x" + "f" * 5000, "a number of 5,002 digits"),
        ("steps: " + "9" * 5000, "a number of 5,000 digits"),
        ("steps: true", "steps: "),
        ("steps: .inf", "steps: "),
        ("steps: 1e999", "steps: "),
        ('a: "\\ud800"', "YAML"),
        ("? [a]\n: 1", "a key is no text"),
        ("a: \0", "YAML"),
        ("{" * 70, "nested more than 64 deep"),
        ("- a\n" * 250_000, "too many values up to here"),
        ("1: 2", "1: "),
        ("null: 2", ": "),
        ("steps: 2001-99-99", "a value is not what it looks like"),
    ],
    ids=lambda value: value[:12],
)
def test_hostile_values_are_one_clear_fault(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path, text), Strict)
    assert said in caught.value.faults[0]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="no regular file"):
        load_yaml(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_yaml(tmp_path)
    with pytest.raises(UsageError, match="cannot read"):
        load_yaml(tmp_path / "a\0b.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (17 << 20))
    with pytest.raises(SpecError) as caught:
        load_yaml(tmp_path / "large.yaml")
    assert caught.value.faults == (f"{tmp_path / 'large.yaml'}:1: is larger than 16 MiB",)


def test_deep_nesting_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        load_yaml(written(tmp_path, "[" * 5000 + "]" * 5000))


def test_verbatim_keys_stay_text(tmp_path: Path) -> None:
    text = "- {input: yes, output: 007}\n- {input: 1.10, output: null}\n- {other: 007}\n"
    document = load_yaml(written(tmp_path, text), verbatim=("input", "output"))
    assert document.value == [
        {"input": "yes", "output": "007"},
        {"input": "1.10", "output": None},
        {"other": 7},
    ]


def test_faults_without_a_model_have_no_suggestion(tmp_path: Path) -> None:
    path = written(tmp_path, "stepz: 3\n")
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"stepz": 3})
    assert faults_of(caught.value, load_yaml(path), path) == [f"{path}:1: stepz: is not a known key"]


def test_a_file_of_fifty_thousand_examples_is_read_and_as_many_faults_are_not_all_listed(tmp_path: Path) -> None:
    rows = "".join(
        f"- {{input: What is question number {number}?, output: This is the answer {number}}}\n"
        for number in range(50_000)
    )
    value = load_yaml(written(tmp_path, rows)).value
    assert isinstance(value, list) and len(value) == 50_000
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path, "".join(f"key_{number}: 0\n" for number in range(1000))), Strict)
    assert len(caught.value.faults) == 201 and "800 faults more" in caught.value.faults[-1]
