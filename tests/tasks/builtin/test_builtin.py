"""The built-in task pack: its shape and its determinism."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from icmlora_cli.tasks.builtin import BuiltinTask, builtin_names, builtin_task, families

ROOT = Path(__file__).parents[3]
NAMES = builtin_names()
TASKS = tuple(builtin_task(name) for name in NAMES)

EASY = (
    *("pick_first_of_3", "pick_last_of_3", "pick_first_of_4", "pick_last_of_4"),
    *("first_letter_upper", "capitalize_word", "sentiment_word", "color_among_animals_3"),
)

SMALL_DOMAINS = {
    "comparative_word": "one input an adjective, and each must have a comparative",
    "superlative_word": "one input an adjective, and each must have a superlative",
    "negated_word": "one input an adjective that takes un-",
    "english_to_spanish": "one input a lexicon row",
    "english_to_french": "one input a lexicon row",
    "english_to_german": "one input a lexicon row",
    "english_to_italian": "one input a lexicon row",
    "spanish_to_english": "one input a lexicon row",
    "french_to_english": "one input a lexicon row",
    "german_to_english": "one input a lexicon row",
}


def pairs_of(name: str, n: int = 400) -> list[tuple[str, str]]:
    return [(example.input, example.output) for example in builtin_task(name).examples(n)]


def test_counts() -> None:
    assert len(NAMES) >= 64
    assert len(set(NAMES)) == len(NAMES)
    assert len(families()) >= 13
    assert sorted(name for names in families().values() for name in names) == sorted(NAMES)
    assert 0.1 <= sum(task.held_out for task in TASKS) / len(TASKS) <= 0.25


def test_unknown_name() -> None:
    with pytest.raises(KeyError):
        builtin_task("no_such_task")


@pytest.mark.parametrize("name", EASY)
def test_easy_tasks_are_short(name: str) -> None:
    assert max(len(text) for text, _ in pairs_of(name)) <= 32


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_descriptions(task: BuiltinTask) -> None:
    assert len(task.descriptions) >= 5
    for text in task.descriptions:
        assert text == text.strip() and "\n" not in text and "{" not in text
        assert text[0].isupper() and text.endswith(".") and ". " not in text


def test_no_two_tasks_share_a_description() -> None:
    texts = [text.lower() for task in TASKS for text in task.descriptions]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_examples(task: BuiltinTask) -> None:
    examples = task.examples(400)
    assert len({example.input for example in examples}) == len(examples)
    assert (len(examples) < 200) == (task.name in SMALL_DOMAINS)
    assert len(examples) >= 80
    for example in examples:
        for text in (example.input, example.output):
            assert text and text == text.strip() and len(text.splitlines()) == 1
        assert len(example.input) <= 80 and len(example.output) <= 40


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_smaller_draw_is_a_prefix(task: BuiltinTask) -> None:
    assert task.examples(400)[:100] == task.examples(100)
    assert task.examples(50, seed=1) != task.examples(50, seed=0)
    assert task.examples(0) == ()


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_one_output_an_input(task: BuiltinTask) -> None:
    rng = random.Random(7)
    seen: dict[str, str] = {}
    for _ in range(3000):
        example = task.draw(rng)
        assert seen.setdefault(example.input, example.output) == example.output


def test_held_out_values_occur_in_other_tasks() -> None:
    for names in families().values():
        family = [builtin_task(name) for name in names]
        assert len({tuple(axis for axis, _ in task.axes) for task in family}) == 1
        assert len({task.axes for task in family}) == len(family)
        seen = {value for task in family if not task.held_out for value in task.axes}
        assert all(set(task.axes) <= seen for task in family if task.held_out)


def digest_in_subprocess(hash_seed: str) -> str:
    code = (
        "import hashlib\n"
        "from icmlora_cli.tasks.builtin import builtin_names, builtin_task\n"
        "text = repr([builtin_task(name).examples(60, 3) for name in builtin_names()])\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_same_examples_in_every_process() -> None:
    assert digest_in_subprocess("1") == digest_in_subprocess("2") != ""


def test_import_is_light() -> None:
    code = (
        "import sys, icmlora_cli.tasks.builtin\n"
        "sys.exit(int(any(name in sys.modules for name in ('torch', 'pydantic', 'numpy', 'transformers'))))"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, check=True)
