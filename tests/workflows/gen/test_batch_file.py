"""Files of many task texts: what is read of them, which folder each text gets, and what is refused."""

import json
from pathlib import Path

import pytest

from icmlora_cli.disk.home import NAME
from icmlora_cli.errors import SpecError, UsageError
from icmlora_cli.workflows.gen.batch_file import LONGEST, folder_name, read_batch


def faults(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_batch(path)
    return "\n".join(caught.value.faults)


def test_lines_and_lists_say_the_same(tmp_path: Path) -> None:
    texts = ["Give the antonym.", "Say: yes # no", "Übersetze ins Englische."]
    (tmp_path / "a.txt").write_text("\ufeff" + "\r\n\n".join(texts), encoding="utf-8")
    (tmp_path / "a.yaml").write_text("".join(f"- text: {json.dumps(text)}\n" for text in texts), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps([{"text": text} for text in texts]), encoding="utf-8")
    found = [
        [(item.name, item.text) for item in read_batch(tmp_path / f"a.{kind}")] for kind in ("txt", "yaml", "json")
    ]
    assert found[0] == found[1] == found[2]
    for name, text in (("b.yaml", "".join(f"- {json.dumps(item)}\n" for item in texts)), ("b.json", json.dumps(texts))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert [(item.name, item.text) for item in read_batch(tmp_path / name)] == found[0]
    assert "b.yaml:2: 1: " in faults(tmp_path / "b.yaml", "- Say cat.\n- 5\n")
    assert [name for name, _ in found[0]] == ["give-the-antonym", "say-yes-no", "ubersetze-ins-englische"]


@pytest.mark.parametrize(
    "text",
    ["../../etc/passwd", "/", "..", "CON\x00", "~", "a/../b", "反対の語を書く。", "🐈", "Straße", "word " * 200, "-rf"],
)
def test_names_of_texts_are_safe(text: str) -> None:
    name = folder_name(text)
    assert NAME.fullmatch(name) and len(name) <= LONGEST and name == folder_name(text)


def test_texts_that_ascii_cannot_tell_apart_get_names_of_their_own() -> None:
    assert folder_name("Say 猫.") != folder_name("Say 犬.")
    assert folder_name("word " * 100 + "a") != folder_name("word " * 100 + "b")


@pytest.mark.parametrize("name", ["../up", "/etc", "a/b", "", ".hidden", "a b", "a\\b", "x" * 101])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    text = f"- text: fine\n- text: Say cat.\n  name: {json.dumps(name)}\n"
    assert f"batch.yaml:3: 1.name: {name[:120]!r} cannot be" in faults(tmp_path / "batch.yaml", text)
    rows = [{"text": "fine"}, {"text": "Say cat.", "name": name}]
    assert "1.name" in faults(tmp_path / "batch.json", json.dumps(rows))


def test_two_texts_of_one_folder_are_refused(tmp_path: Path) -> None:
    said = faults(tmp_path / "a.txt", "Say cat.\nSay dog.\n\nSay cat!\nSay dog.\n")
    assert "a.txt:4: its folder would be say-cat, as that of line 1: give both a name" in said
    assert "a.txt:5: its folder would be say-dog, as that of line 2: the same text twice" in said
    said = faults(tmp_path / "a.yaml", "- {text: Say cat., name: Cat}\n- {text: Say dog., name: cat}\n")
    assert "a.yaml:2: its folder would be cat, as that of line 1" in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "", "not one text"),
        ("a.yaml", "", "not one text"),
        ("a.json", "[]", "not one text"),
        ("a.json", "[{]", "not valid JSON"),
        ("a.json", '[{"text": "\\ud83d"}]', "surrogate"),
        ("a.yaml", "texts: [Say cat.]\n", "should be a list"),
        ("a.yaml", "- text: Say cat.\n  nmae: cat\n", "did you mean 'name'?"),
        ("a.yaml", "- name: cat\n", "a.yaml:1: 0.text: is missing"),
        ("a.yaml", "- text: ''\n", "the task text is empty"),
        ("a.txt", f"Say cat.\n{'a' * 2001}\n", "a.txt:2: the task text has 2,001 characters"),
    ],
)
def test_faults_say_where(tmp_path: Path, name: str, text: str, said: str) -> None:
    assert said in faults(tmp_path / name, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_batch(tmp_path / "nowhere.txt")
    with pytest.raises(UsageError, match="is a folder"):
        read_batch(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(SpecError) as caught:
        read_batch(tmp_path / "a.txt")
    assert "a.txt:2: byte 0xff is not UTF-8" in caught.value.faults[0]
