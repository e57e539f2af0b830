"""The grammar of descriptions and the sentences it composes."""

import random

import pytest

from icmlora_cli.tasks.builtin import BuiltinTask, builtin_names, builtin_task, dense_tasks, phrase
from icmlora_cli.tasks.builtin.grammar import Wording, compose, render

TASKS = (*dense_tasks(), *(builtin_task(name) for name in builtin_names() if builtin_task(name).held_out))


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("plain", {"plain"}),
        ("[a|b]c", {"ac", "bc"}),
        ("x[ y|]", {"x", "x y"}),
        ("[[a|b]|c] {thing}", {f"{left} {right}" for left in "abc" for right in ("cup", "hat")}),
        ("a/an apple, a/an cup", {"an apple, a cup"}),
        ("A/an 8-item list, a/an one-word reply", {"An 8-item list, a one-word reply"}),
        ("words[,|].", {"words."}),
    ],
)
def test_render(template: str, texts: set[str]) -> None:
    rng = random.Random(0)
    assert {render(template, {"thing": "[cup|hat]"}, rng) for _ in range(200)} == texts


def test_unknown_field() -> None:
    with pytest.raises(KeyError):
        render("{nothing}", {}, random.Random(0))


def test_compose_leaves_out_what_is_not_given() -> None:
    wording = Wording("a word", "double the word")
    texts = {compose(wording, random.Random(seed)) for seed in range(300)}
    assert all("double the word" in text.lower() for text in texts) and len(texts) > 60


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_phrases(task: BuiltinTask) -> None:
    rng = random.Random(3)
    texts = [phrase(task, rng) for _ in range(100)]
    again = random.Random(3)
    assert texts == [phrase(task, again) for _ in range(100)]
    assert len(set(texts)) >= 40
    for text in texts:
        assert not set(text) & set("{}[]") and "a/an" not in text and "||" not in text
        assert text == text.strip() and "  " not in text and "\n" not in text
        assert 3 <= len(text) <= 260


def test_curated_descriptions_come_back() -> None:
    task = builtin_task("pick_last_of_3")
    rng = random.Random(0)
    share = sum(phrase(task, rng) in task.descriptions for _ in range(2000)) / 2000
    assert 0.2 <= share <= 0.3


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("pick_last_of_3", ("last", "final", "end")),
        ("last_letter_lower", ("lower", "small")),
        ("second_largest_of_5", ("second",)),
        ("is_tool_y_n", ("y for", "y or n", "y/n", '"y"', "y if", "tool")),
        ("spanish_to_french", ("french",)),
        ("plus_10_digits", ("ten", "10")),
        ("verb_among_nouns_3", ("verb",)),
        ("relation_capital", ("capital",)),
    ],
)
def test_parameters_are_named(name: str, needed: tuple[str, ...]) -> None:
    task = next(task for task in TASKS if task.name == name)
    rng = random.Random(1)
    for _ in range(200):
        text = phrase(task, rng).lower()
        assert any(word in text for word in needed), text
