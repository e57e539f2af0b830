"""The further tasks of meta-training: their number, their answers, and that they leak nothing held out."""

import hashlib
import random
from itertools import combinations

import pytest

from icmlora_cli.tasks.builtin import BuiltinTask, builtin_names, builtin_task, dense_tasks
from icmlora_cli.tasks.builtin.words_more_kinds import BASIC, PARTS_OF_SPEECH

CURATED = tuple(builtin_task(name) for name in builtin_names())
HELD_OUT = tuple(task for task in CURATED if task.held_out)
ALL = dense_tasks()
FURTHER = tuple(task for task in ALL if task.name not in builtin_names())
BY_NAME = {task.name: task for task in ALL}

SEPARATORS = ("; ", " ", " | ", " and ", "/")
CURATED_DIGEST = "64e433a8b69516b1f589c96f23aac47cd20396aba5ea98053e3f14e302dc7cd3"

SPOT_CHECKS = {
    "pick_second_to_last_of_5": ("red, blue, green, pink, gold", "pink"),
    "pick_fifth_of_6": ("a, b, c, d, e, f", "e"),
    "pick_first_of_3_semicolon": ("lamp; boat; key", "lamp"),
    "last_three_letters_upper": ("garden", "DEN"),
    "second_to_last_letter_lower": ("GARDEN", "e"),
    "first_and_last_letters_same": ("garden", "gn"),
    "capitalize_last_word": ("old lamp post", "old lamp Post"),
    "word_without_vowels": ("garden", "grdn"),
    "word_article": ("apple", "an apple"),
    "wrap_curly": ("lamp", "{lamp}"),
    "word_after_the": ("lamp", "the lamp"),
    "alphabetical_first_of_5": ("pen, cup, ant, zoo, bed", "ant"),
    "shortest_of_3": ("island, ox, garden", "ox"),
    "sort_words_down_of_3": ("cup, ant, bed", "cup, bed, ant"),
    "second_largest_of_4": ("7, 90, 12, 34", "34"),
    "middle_value_of_3": ("9, 100, 20", "20"),
    "count_letter_e": ("cheese", "3"),
    "count_consonants_in_words": ("garden", "four"),
    "count_kind_animals": ("dog, lamp, cat", "2"),
    "digits_to_ordinal_words": ("21", "twenty-first"),
    "ordinal_words_to_digits": ("twelfth", "12"),
    "plus_10_words": ("seven", "seventeen"),
    "minus_5_digits": ("12", "7"),
    "multiply_digits": ("6 x 7", "42"),
    "add_digits_to_words": ("24 + 27", "fifty-one"),
    "number_even_odd": ("13", "odd"),
    "number_round_ten": ("47", "50"),
    "next_by_10": ("30, 40, 50", "60"),
    "missing_by_2": ("4, _, 8", "6"),
    "next_down_3": ("30, 27, 24", "21"),
    "next_run_of_weekdays": ("Saturday, Sunday", "Monday"),
    "previous_single_letter": ("K", "J"),
    "us_date_to_iso": ("March 5, 2021", "2021-03-05"),
    "dots_date_to_long": ("05.03.2021", "5 March 2021"),
    "weekday_two_before_of_note": ("exam on Monday", "Saturday"),
    "month_quarter_of_note": ("exam in April", "2"),
    "month_full_of_note": ("exam in Sep", "September"),
    "hour_earlier_12h": ("12:30 PM", "11:30 AM"),
    "half_hour_later_24h": ("23:45", "00:15"),
    "minutes_to_hours": ("120 minutes", "2 hours"),
    "hours_to_minutes_number": ("2 hours", "120"),
    "feet_to_yards": ("3 feet", "1 yard"),
    "singular_word": ("wolves", "wolf"),
    "base_of_past_word": ("went", "go"),
    "past_of_ing_word": ("running", "ran"),
    "question_phrase": ("you walk", "do you walk?"),
    "verb_among_nouns_3": ("lamp, understand, house", "understand"),
    "tool_among_clothes_4": ("shirt, hammer, coat, sock", "hammer"),
    "is_sport_1_0": ("tennis", "1"),
    "animal_or_fruit_of_word": ("lemon", "fruit"),
    "extension_from_file_name": ("map.pdf", "pdf"),
    "bracketed_from_parentheses": ("old (lamp) post", "lamp"),
    "and_list": ("cup, pen, key", "cup and pen and key"),
    "swap_two_and": ("cup and pen", "pen and cup"),
    "last_to_front_list": ("a, b, c", "c, a, b"),
    "signs_word": ("very awful", "-"),
    "spanish_to_french": ("casa", "maison"),
    "english_or_german": ("Haus", "German"),
    "relation_capital": ("Japan", "Tokyo"),
    "relation_young": ("cow", "calf"),
    "relation_opposite": ("cold", "hot"),
    "relation_female_back": ("queen", "king"),
    "relation_short_form": ("do not", "don't"),
}


def answer_of(task: BuiltinTask, text: str) -> str | None:
    assert task.answer is not None
    try:
        return task.answer(text)
    except ValueError:
        return None


def test_counts_and_names() -> None:
    assert len(ALL) >= 450
    assert len(BY_NAME) == len(ALL)
    assert len({task.family for task in ALL}) >= 23
    assert dense_tasks() is ALL
    assert not {task.name for task in HELD_OUT} & set(BY_NAME)
    assert not any(task.held_out for task in ALL)
    assert set(CURATED) - set(HELD_OUT) <= set(ALL)


def test_curated_catalogue_is_unchanged() -> None:
    rows = [(task.name, task.descriptions, task.axes, task.held_out, task.examples(40)) for task in CURATED]
    assert hashlib.sha256(repr(rows).replace(", picture=None", "").encode()).hexdigest() == CURATED_DIGEST


@pytest.mark.parametrize(("name", "pair"), SPOT_CHECKS.items(), ids=SPOT_CHECKS)
def test_known_answers(name: str, pair: tuple[str, str]) -> None:
    assert answer_of(BY_NAME[name], pair[0]) == pair[1]


@pytest.mark.parametrize("task", FURTHER, ids=lambda task: task.name)
def test_examples(task: BuiltinTask) -> None:
    examples = task.examples(80)
    assert len(examples) >= 12
    for example in examples:
        for text in (example.input, example.output):
            assert text and text == text.strip() and len(text.splitlines()) == 1
        assert len(example.input) <= 90 and len(example.output) <= 60
        assert task.answer is None or task.answer(example.input) == example.output
    rng, seen = random.Random(7), dict[str, str]()
    for _ in range(300):
        example = task.draw(rng)
        assert seen.setdefault(example.input, example.output) == example.output


def test_most_domains_are_large() -> None:
    small = [task.name for task in FURTHER if len(task.examples(60)) < 60]
    assert len(small) < 0.06 * len(FURTHER)


@pytest.mark.parametrize("held", HELD_OUT, ids=lambda task: task.name)
def test_no_further_task_computes_a_held_out_one(held: BuiltinTask) -> None:
    examples = held.examples(40, seed=5)
    listed = held.family == "pick_from_list"
    for task in FURTHER:
        if task.answer is None:
            assert task.family == "extraction"
            continue
        for separator in (", ", *(SEPARATORS if listed else ())):
            texts = [example.input.replace(", ", separator) for example in examples]
            found = [answer_of(task, text) for text in texts]
            assert found != [example.output for example in examples], (task.name, separator)


def test_upper_case_last_letter_stays_held_out() -> None:
    words = [example.input for example in builtin_task("last_letter_upper").examples(60)]
    for task in FURTHER:
        if task.answer is not None:
            assert [answer_of(task, word) for word in words] != [word[-1].upper() for word in words], task.name


def test_kinds_share_no_word() -> None:
    for pools in (BASIC, PARTS_OF_SPEECH):
        for left, right in combinations(pools, 2):
            assert not set(pools[left]) & set(pools[right]), (left, right)


def test_fixed_descriptions() -> None:
    mains = [task.descriptions[0].lower() for task in FURTHER]
    assert len(set(mains)) == len(mains)
    for task in FURTHER:
        assert len(task.descriptions) >= 3
        for text in task.descriptions:
            assert text == text.strip() and text[0].isupper() and text.endswith(".")
            assert not set(text) & set("{}[]")
