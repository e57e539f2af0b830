"""Tasks that are known by their description alone: named by it, kept, and not taken for what they are not."""

from pathlib import Path

import pytest

from icmlora_cli.disk.home import NAME, Home
from icmlora_cli.errors import UsageError
from icmlora_cli.registry.described import described, name_of
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.workflows.select_tasks import tasks_to_learn, tasks_to_score, tasks_to_train
from icmlora_cli.workflows.tasks import export


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Say it in French.", "say_it_in_french"),
        ("  Ünïcode & more! ", "n_code_more"),
        ("word " * 40, "word_" * 8 + "word"),
        ("x" * 80, "x" * 48),
    ],
)
def test_a_name_is_made_of_the_words(text: str, name: str) -> None:
    assert name_of(text) == name and NAME.fullmatch(name)


def test_it_is_kept_and_has_no_examples(home: Home, tmp_path: Path) -> None:
    store = TaskStore(home)
    store.write(described("pirate", " Answer as\n a pirate. ", licence="mit", source="someone"))
    task = store.get("pirate")
    assert task.descriptions == ("Answer as a pirate.",) and not task.has_examples and task.licence == "mit"
    assert task.examples("train") == task.examples("test") == ()
    with pytest.raises(UsageError, match="no task is registered"):
        tasks_to_learn(home, None)
    with pytest.raises(UsageError, match="no examples to train on"):
        tasks_to_learn(home, ["pirate"])
    with pytest.raises(UsageError, match="no examples to score"):
        tasks_to_score(home, ["pirate"])
    assert tasks_to_score(home, None) == tasks_to_train(home, "some/base", None, episodes=True) == ()
    with pytest.raises(UsageError, match="no examples for a task file"):
        export(store, ["pirate"], tmp_path / "out.yaml")
    for text in ("", " \n ", "x" * 3000):
        with pytest.raises(UsageError, match="a description has 1 to 2000"):
            described("pirate", text, licence=None, source=None)
    with pytest.raises(UsageError, match="no name can be made"):
        name_of("日本語")
