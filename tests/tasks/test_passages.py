"""Cutting plain text into passages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icmlora_cli.tasks.passages import cut

PARAGRAPH = "A sentence of some words, and another one. " * 5


def test_passages_end_where_paragraphs_end() -> None:
    paragraphs = [f"Paragraph {number}. {PARAGRAPH}".strip() for number in range(10)]
    text = "\r\n\r\n".join(paragraphs)
    found = cut(text, 500)
    assert "\n\n".join(found) == "\n\n".join(paragraphs)
    assert all(500 <= len(passage) < 1200 for passage in found[:-1])
    assert all(passage.startswith("Paragraph ") for passage in found)


def test_indented_text_keeps_its_indentation() -> None:
    code = "def f():\n    a = 1\n\n    return a\n"
    assert cut(code, 1000) == [code.rstrip()]


def test_a_long_paragraph_is_cut_at_the_end_of_a_line_a_sentence_or_a_word() -> None:
    for unit, end in (("words " * 20 + "\n", "words"), ("Some words. ", "."), ("word ", "word"), ("x", "x")):
        found = cut(unit * (5000 // len(unit)), 500)
        assert all(250 <= len(passage) <= 750 and passage.endswith(end) for passage in found), unit
        assert len(found) >= 6


def test_a_short_rest_goes_to_the_passage_before() -> None:
    assert cut("a" * 100 + "\n\nrest", 100) == ["a" * 100 + "\n\nrest"]
    assert cut("a" * 100 + "\n\n" + "b" * 50, 100) == ["a" * 100, "b" * 50]


@pytest.mark.parametrize("text", ["", " \n\n \t\n"])
def test_nothing_gives_no_passage(text: str) -> None:
    assert cut(text, 100) == []


@given(st.text(alphabet="ab .\n\t", max_size=400), st.integers(5, 50))
def test_nothing_but_white_space_is_lost(text: str, size: int) -> None:
    found = cut(text, size)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(passage.strip() for passage in found)
