"""Paths of this machine: found and shortened, and nothing else."""

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icmlora_cli.provenance.local_paths import clean, is_local, names_path, shortened, shortened_command, strings


@pytest.mark.parametrize(
    "text", ["/home/me", "/x", "~/x", "~me/x", "C:\\a\\b", "D:/x", "\\\\host\\share", "file:///a/b"]
)
def test_paths(text: str) -> None:
    assert is_local(text)


@pytest.mark.parametrize("text", ["", "/", "a/b", "org/name", "https://x.org/a", "//x", "and/or", "c: x", "~", "1/2"])
def test_no_paths(text: str) -> None:
    assert not is_local(text) and not names_path(text)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("imported adapter /home/me/loras/cat", "imported adapter cat"),
        ("from '/home/me/a.txt', and (/tmp/b/c)", "from 'a.txt', and (c)"),
        ("see https://huggingface.co/a/b and/or c/d", "see https://huggingface.co/a/b and/or c/d"),
        ("/home/me/x", "x"),
        ("C:\\Users\\me\\x.yaml", "x.yaml"),
        ("file:///home/me/x", "x"),
        ("/home/Jane Doe/My Loras/cat", "cat"),
        ("adapter /home/Jane Doe/My Loras/cat", "adapter cat"),
        ("from '/home/O'Brien/Jane, Doe/x.txt', and more", "from 'x.txt', and more"),
        ("C:\\Users\\Jane Doe\\My Loras\\x.yaml", "x.yaml"),
        ("~jane/My (old) Loras/x", "x"),
        ("one /a b/c d/e\ntwo /f g/h", "one e\ntwo h"),
    ],
)
def test_shortened(text: str, short: str) -> None:
    assert shortened(text) == short and not names_path(shortened(text))


HOSTILE = st.lists(st.text(min_size=1).filter(lambda text: not re.search(r"[/\\\x00]", text)), min_size=2, max_size=5)


@given(HOSTILE, st.sampled_from(["/", "~/", "C:\\", "file:///"]))
def test_no_folder_of_a_path_is_left_whatever_it_is_called(parts: list[str], root: str) -> None:
    names = [f"secret{index}{part}" for index, part in enumerate(parts)]
    path = root + "/".join(names)
    line = path.replace("\n", " ").replace("\r", " ")
    for text in (line, f"imported from {line}", f"'{line}'", f"see ({line})"):
        assert not re.search(r"secret0", shortened(text).replace(f"secret{len(names) - 1}", "")), text
    said = shortened_command(shlex.join(["icmlora", "gen", "x", "-o", path, f"--examples={path}", f"-e{path}"]))
    assert "secret0" not in said


def test_a_command_is_cut_by_its_words() -> None:
    typed = "icmlora gen 'Say /usr/bin/cat.' -o '/home/me/my folder/out' --examples=/tmp/x.jsonl --seed 1"
    assert shortened_command(typed) == "icmlora gen 'Say /usr/bin/cat.' -o out --examples=x.jsonl --seed 1"
    assert shortened_command("icmlora gen cat -o/home/me/out -k16") == "icmlora gen cat -oout -k16"
    assert shortened_command("icmlora  train") == "icmlora  train"
    assert shortened_command("broken ' /home/me/x") == "broken ' x"


def test_a_value_is_cleaned_but_for_what_was_said_in_words() -> None:
    value = {"command": "a -o /b/c", "text": "/home/me/x", "list": [{"from": "/a/b"}, 1, None], "n": {"text": "/q/r"}}
    assert clean(value, ("text",)) == value | {"command": "a -o c", "list": [{"from": "b"}, 1, None]}
    assert list(strings(value)) == [
        *(("command", "a -o /b/c"), ("text", "/home/me/x"), ("list.from", "/a/b"), ("n.text", "/q/r"))
    ]
