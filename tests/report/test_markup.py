"""Text in Markdown is text: as a CommonMark parser sees it."""

import pytest
from markdown_it import MarkdownIt

from icmlora_cli.report.markup import code, quoted


@pytest.mark.parametrize("text", ["a", "a`b", "``", "`a", "a``b`", " ", " a ", "", "x" * 500, "a\n\n# b", "\x1b[31m"])
def test_a_name_is_one_code_span(text: str) -> None:
    (token,) = (found for found in MarkdownIt().parse(f"x {code(text)} y") if found.type == "inline")
    assert token.children is not None
    kinds = [child.type for child in token.children]
    assert kinds == ["text", "code_inline", "text"] or (not text and kinds == ["text"])


@pytest.mark.parametrize("text", ["# a", "```\nx", "a\n\n<b>", "- x", "\t x", "---", "[a](b)"])
def test_a_quotation_is_one_code_block(text: str) -> None:
    tokens = MarkdownIt().parse(f"x\n\n{quoted(text)}\n\ny")
    kinds = [token.type for token in tokens if not token.type.startswith("paragraph")]
    assert kinds == ["inline", "code_block", "inline"]
