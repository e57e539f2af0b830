"""Text of others, as it may be shown."""

import json

from hypothesis import given
from hypothesis import strategies as st

from icmlora_cli.report.shown import one_line, visible, visible_json

EVIL = "\x1b[31mred\x1b[0m \x9b2J \x00 \r \u202eevil\u2066 \u2028 \ud800 \x07 \x7f"


def test_a_terminal_gets_no_control_characters() -> None:
    shown = visible(EVIL)
    assert shown.isprintable() and shown.startswith("\\x1b[31mred\\x1b[0m \\x9b2J \\x00 \\r \\u202eevil\\u2066 \\u2028")
    assert "\\ud800" in shown and visible("tab\tline\n漢字 é 👩‍🚀") == "tab\tline\n漢字 é 👩‍🚀"


@given(st.text(alphabet=st.characters()))
def test_json_keeps_its_value(text: str) -> None:
    shown = visible_json(json.dumps({"x": text}, ensure_ascii=False))
    assert json.loads(shown) == {"x": text}
    assert not set(shown) & set("\x1b\x7f\x9b\r\u202e\u2066\u2028")


def test_one_line() -> None:
    assert one_line("a\nb\x1bc\u202ed") == "a b c d"
    assert one_line("x" * 50, 10) == "xxxxxxx..." and one_line("x" * 10, 10) == "x" * 10
