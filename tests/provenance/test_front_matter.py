"""The front matter of a card is found in time in proportion to its bytes, whatever they are."""

from pathlib import Path

import pytest

from icmlora_cli.provenance.front_matter import LONGEST, front_matter
from icmlora_cli.registry.base_files import licence_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: mit\n---\nText", "license: mit"),
        ("\n\n---\r\nlicense: mit\r\ntags: [a]\r\n---\r\n", "license: mit\ntags: [a]"),
        ("# no card\n---\nlicense: mit\n---\n", ""),
        ("---\nlicense: mit\n", ""),
        ("---\n" + "\n" * 10_000_000, ""),  # took minutes, by a pattern that tried every pair of newlines
        ("---" * 1_000_000, ""),
        ("", ""),
        ("---\n" + "x" * LONGEST + "\n---\n", ""),
    ],
)
def test_front_matter(tmp_path: Path, text: str, found: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(text, encoding="utf-8", newline="")
    assert front_matter(card) == found


def test_the_licence_of_a_card(tmp_path: Path) -> None:
    assert licence_of(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: 'Apache-2.0'\n\xff: x\n---\n")
    assert licence_of(tmp_path) == "apache-2.0"
