"""Pasted examples: lines, rows of a file, passages; what is wrong is said by its line."""

import json

import pytest

pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
from icmlora_cli.errors import RequestError
from icmlora_cli.serving.play.pasted import MAX_PASTED, read_pasted
from icmlora_cli.tasks.examples import Example
from icmlora_cli.workflows.gen.options import Template

PAIRS = (Example("sun, tea", "tea"), Example("a -> b", "b"))


def pairs(text: str, template: Template = "qa") -> tuple[Example, ...]:
    file = read_pasted(text, template)
    assert file is not None
    return file.examples


@pytest.mark.parametrize(
    "text",
    [
        "sun, tea => tea\n\n  a -> b =>b  \n",
        "sun, tea => tea\r\na -> b => b",
        "input\toutput\nsun, tea\ttea\na -> b\tb",
        'input,output\n"sun, tea",tea\na -> b,b\n',
        '{"input": "sun, tea", "output": "tea"}\n{"input": "a -> b", "output": "b"}',
        '[{"input": "sun, tea", "output": "tea"}, {"input": "a -> b", "output": "b"}]',
        '{"question": "sun, tea", "answer": "tea"}\n{"question": "a -> b", "answer": "b"}',
    ],
)
def test_forms(text: str) -> None:
    assert pairs(text) == PAIRS


def test_other_signs_and_repetitions() -> None:
    assert pairs("one -> 1\none -> 1\ntwo → 2\nthree\t3") == (
        Example("one", "1"),
        Example("two", "2"),
        Example("three", "3"),
    )


def test_passages_are_split_by_empty_lines() -> None:
    assert pairs("First one,\ngoes on.\n\nSecond.", "text") == (
        Example("", "First one, goes on."),
        Example("", "Second."),
    )


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_nothing_is_nothing(text: str) -> None:
    assert read_pasted(text, "qa") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sun => tea\nmoon", "line 2 has no => between input and output"),
        ("=> tea", "line 1 has no input before the =>"),
        ("sun =>", "line 1 has no output after the =>"),
        ("\n".join("x" for _ in range(9)), "; and 4 more"),
        ('{"input": "sun"}', "output"),
        ('{"input": "sun", ', "pasted examples:1"),
        ("[1, 2]", "pasted examples"),
        ('{"a": 1, "b": 2}', "a, b"),
        ("\n".join(f"{index} => {index}" for index in range(MAX_PASTED + 1)), "at most 200"),
        (json.dumps([{"input": str(index), "output": "x"} for index in range(MAX_PASTED + 1)]), "at most 200"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_pasted(text, "qa")
    assert said in caught.value.message and caught.value.param == "examples"
    assert "/tmp" not in caught.value.message
