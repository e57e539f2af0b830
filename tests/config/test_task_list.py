"""Lists of task names: what a file may hold, and what stands for it in a command."""

from pathlib import Path

import pytest

from icmlora_cli.config.recipes import shipped_recipes
from icmlora_cli.config.task_list import read_task_list, without_lists
from icmlora_cli.errors import SpecError, UsageError


def test_a_list_stands_for_its_names_and_nothing_else_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("tasks: [b, a, 'c_*']\n", encoding="utf-8")
    assert list(without_lists(["x", f"@{file}", "family:y"])) == ["x", "b", "a", "c_*", "family:y"]
    assert list(without_lists(["@held-out"])) == list(read_task_list(Path("lists/held-out")))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ":1: tasks: is missing"),
        ("tasks: []", ":1: tasks"),
        ("tasks: pick_first_of_3", ":1: tasks: should be a list"),
        ("tasks:\n- a\n- '@held-out'", ":3: tasks.1"),
        ("tasks:\n- a\n- 3", ":3: tasks.1"),
        ("tasks: [a]\nnames: [b]", ":2: names: is not a known key"),
    ],
)
def test_faults_are_told_with_their_line(text: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_task_list(file)
    assert len(caught.value.faults) == 1 and f"{file}{fault}" in caught.value.faults[0]


def test_a_list_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UsageError) as caught:
        list(without_lists(["@held_out"]))
    assert "held_out" in caught.value.message and "@held-out, " in str(caught.value.hint)


def test_no_shipped_list_names_a_task_twice() -> None:
    names = [Path(name) for name in shipped_recipes() if name.startswith("lists/")]
    assert names
    for name in names:
        assert len(set(read_task_list(name))) == len(read_task_list(name)), name
