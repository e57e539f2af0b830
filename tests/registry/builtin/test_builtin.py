"""The built-in task pack: its shape, its determinism, and its answers recomputed independently."""

import json
import random
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from icmlora_cli.registry.builtin import BuiltinTask, builtin_names, builtin_task, families

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

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def value_of_words(text: str) -> int:
    total = 0
    for word in text.replace("-", " ").split():
        if word == "hundred":
            total *= 100
        else:
            total += TENS.get(word) or ONES.index(word)
    return total


def value_of_roman(text: str) -> int:
    values = [ROMAN[letter] for letter in text]
    following = [*values[1:], 0]
    return sum(-value if value < after else value for value, after in zip(values, following, strict=True))


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
        "from icmlora_cli.registry.builtin import builtin_names, builtin_task\n"
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
        "import sys, icmlora_cli.registry.builtin\n"
        "sys.exit(int(any(name in sys.modules for name in ('torch', 'pydantic', 'numpy', 'transformers'))))"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_pick_first_and_last(count: int) -> None:
    for text, answer in pairs_of(f"pick_first_of_{count}"):
        assert text.count(",") == count - 1 and text.startswith(f"{answer}, ")
    for text, answer in pairs_of(f"pick_last_of_{count}"):
        assert text.count(",") == count - 1 and text.endswith(f", {answer}")


def test_pick_inner() -> None:
    for name, index, count in (
        ("pick_second_of_5", 1, 5),
        ("pick_third_of_4", 2, 4),
        ("pick_middle_of_3", 1, 3),
        ("pick_middle_of_5", 2, 5),
    ):
        for text, answer in pairs_of(name):
            items = text.split(", ")
            assert len(items) == count and items[index] == answer


def test_letters_and_case() -> None:
    assert all(answer == text.upper()[0] for text, answer in pairs_of("first_letter_upper"))
    assert all(text.islower() and answer == text[0].upper() + text[1:] for text, answer in pairs_of("capitalize_word"))
    assert all(text.isupper() and text.lower().endswith(answer) for text, answer in pairs_of("last_letter_lower"))
    assert all(answer == text.lower()[1] for text, answer in pairs_of("second_letter_lower"))
    assert all(answer == " ".join(map(str.capitalize, text.split())) for text, answer in pairs_of("capitalize_phrase"))
    assert all(text.isupper() and answer == text.casefold() for text, answer in pairs_of("lowercase_phrase"))


def test_ordering() -> None:
    for count in (3, 4):
        for text, answer in pairs_of(f"sort_words_of_{count}"):
            items = answer.split(", ")
            assert all(a < b for a, b in zip(items, items[1:], strict=False))
            assert set(items) == set(text.split(", ")) and len(items) == count
        for text, answer in pairs_of(f"alphabetical_last_of_{count}"):
            assert answer == max(text.split(", "))
        for text, answer in pairs_of(f"smallest_of_{count}"):
            assert int(answer) == min(map(int, text.split(", ")))
        for text, answer in pairs_of(f"largest_of_{count}"):
            assert int(answer) == max(map(int, text.split(", ")))
        for text, answer in pairs_of(f"sort_numbers_of_{count}"):
            assert [int(item) for item in answer.split(", ")] == sorted(int(item) for item in text.split(", "))


def test_counting() -> None:
    assert all(int(answer) == text.count(" ") + 1 for text, answer in pairs_of("count_words"))
    assert all(ONES.index(answer) == len(text) for text, answer in pairs_of("count_letters_in_words"))
    for text, answer in pairs_of("count_vowels"):
        assert int(answer) == sum(text.count(vowel) for vowel in "aeiou")
    for text, answer in pairs_of("count_given_letter"):
        letter, word = text.split(" in ")
        assert len(letter) == 1 and int(answer) == len(word.split(letter)) - 1
    assert all(int(answer) == len(text.split(", ")) for text, answer in pairs_of("count_items"))


def test_numerals() -> None:
    assert all(value_of_words(answer) == int(text) for text, answer in pairs_of("digits_to_words"))
    assert all(value_of_words(text) == int(answer) for text, answer in pairs_of("words_to_digits"))
    assert all(value_of_roman(answer) == int(text) for text, answer in pairs_of("digits_to_roman"))
    assert all(value_of_roman(text) == value_of_words(answer) for text, answer in pairs_of("roman_to_words"))
    assert not any(letter * 4 in answer for _, answer in pairs_of("digits_to_roman") for letter in ROMAN)
    ordinals = dict(pairs_of("digits_to_ordinal"))
    for text, answer in (
        ("1", "1st"),
        ("2", "2nd"),
        ("3", "3rd"),
        ("4", "4th"),
        ("11", "11th"),
        ("21", "21st"),
    ):
        assert ordinals[text] == answer
    assert ordinals["112"] == "112th" and ordinals["313"] == "313th" and ordinals["322"] == "322nd"


def test_arithmetic() -> None:
    for text, answer in pairs_of("add_digits"):
        assert sum(map(int, text.split(" + "))) == int(answer)
    for text, answer in pairs_of("subtract_words"):
        left, right = map(value_of_words, text.split(" minus "))
        assert left - right == value_of_words(answer) >= 0
    assert all(int(text) * 2 == int(answer) for text, answer in pairs_of("double_digits"))
    assert all(value_of_words(text) + 1 == value_of_words(answer) for text, answer in pairs_of("increment_words"))
    assert all(int(text) == int(answer) + 1 for text, answer in pairs_of("decrement_digits"))


def test_dates() -> None:
    for text, answer in pairs_of("iso_date_to_long"):
        day = date.fromisoformat(text)
        assert answer == f"{day.day} {day:%B %Y}"
    for text, answer in pairs_of("slash_date_to_us"):
        assert datetime.strptime(text, "%d/%m/%Y") == datetime.strptime(answer, "%B %d, %Y")
    assert all(answer == f"{date.fromisoformat(text):%B}" for text, answer in pairs_of("iso_date_to_month"))


def test_calendar() -> None:
    monday = date(2024, 1, 1)
    week = [f"{monday + timedelta(days=offset):%A}" for offset in range(8)]
    for text, answer in pairs_of("next_weekday"):
        assert week[week.index(text.split()[-1]) + 1] == answer
    for text, answer in pairs_of("previous_weekday"):
        assert week[week.index(answer) + 1] == text.split()[-1]
    for text, answer in pairs_of("month_number"):
        assert f"{date(2024, int(answer), 1):%B}" == text.split()[-1]
    for text, answer in pairs_of("previous_month"):
        month = datetime.strptime(text.split()[-1], "%B").month
        assert f"{date(2024, month, 1) - timedelta(days=1):%B}" == answer


def test_times() -> None:
    for text, answer in pairs_of("convert_24h"):
        assert datetime.strptime(answer, "%I:%M %p") == datetime.strptime(text, "%H:%M")
    for text, answer in pairs_of("convert_12h"):
        assert f"{datetime.strptime(text, '%I:%M %p'):%H:%M}" == answer
    for name, form in (("hour_later_24h", "%H:%M"), ("hour_later_12h", "%I:%M %p")):
        for text, answer in pairs_of(name):
            later = datetime.strptime(text, form) + timedelta(hours=1)
            assert later.time() == datetime.strptime(answer, form).time()


def test_units() -> None:
    for name, factor in (
        ("hours_to_minutes", 60),
        ("days_to_minutes", 60 * 24),
        ("meters_to_centimeters", 100),
    ):
        for text, answer in pairs_of(name):
            assert int(text.split()[0]) * factor == int(answer.split()[0])
            assert answer.split()[1] == name.rsplit("_", 1)[1]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (
            "plural_word",
            "child children,box boxes,city cities,key keys,leaf leaves,roof roofs,sheep sheep,bus buses",
        ),
        (
            "past_word",
            "go went,stop stopped,carry carried,stay stayed,bake baked,cut cut,open opened,tie tied",
        ),
        ("ing_word", "run running,die dying,make making,see seeing,agree agreeing,open opening,sit sitting"),
        ("third_person_word", "go goes,have has,watch watches,try tries,play plays,mix mixes,do does"),
        (
            "comparative_word",
            "big bigger,good better,happy happier,flat flatter,wise wiser,shy shyer,dry drier",
        ),
        ("superlative_word", "bad worst,far farthest,easy easiest,hot hottest,large largest,new newest"),
        ("negated_word", "happy unhappy,fair unfair,true untrue"),
    ],
)
def test_morphology(name: str, known: str) -> None:
    table = dict(pairs_of(name, 1000))
    for pair in known.split(","):
        word, form = pair.split()
        assert table[word] == form


def test_morphology_phrases() -> None:
    assert dict(pairs_of("comparative_word", 1000))["careful"] == "more careful"
    plurals = dict(pairs_of("plural_word", 1000))
    for text, answer in pairs_of("plural_phrase"):
        assert answer == f"two {plurals[text.removeprefix('one ')]}"
    for text, answer in pairs_of("ing_phrase"):
        assert answer.startswith("I am " if text.startswith("I ") else f"{text.split()[0]} are ")
    assert all(answer.startswith("the ") for _, answer in pairs_of("superlative_phrase"))


def test_kinds_are_disjoint() -> None:
    labels = dict(pairs_of("category_of_word", 2000))
    for text, answer in pairs_of("color_among_animals_3"):
        kinds = [labels[item] for item in text.split(", ")]
        assert sorted(kinds) == ["animal", "animal", "color"] and labels[answer] == "color"
    for text, answer in pairs_of("animal_among_cities_4"):
        others = [item for item in text.split(", ") if item != answer]
        assert labels[answer] == "animal" and [labels[item] for item in others] == ["city"] * 3
    for text, answer in pairs_of("is_fruit_yes_no"):
        assert (labels[text.split()[-1]] == "fruit") == (answer == "yes")
    for text, answer in pairs_of("category_of_list"):
        assert {labels[item] for item in text.split(", ")} == {answer}


def test_labels_are_balanced() -> None:
    for name in ("sentiment_word", "is_color_yes_no", "is_animal_true_false"):
        answers = [answer for _, answer in pairs_of(name)]
        assert all(answers.count(label) >= 0.3 * len(answers) for label in set(answers))
        assert len(set(answers)) == 2


def test_extraction() -> None:
    for text, answer in pairs_of("city_from_json"):
        assert json.loads(text)["city"] == answer
    for text, answer in pairs_of("age_from_csv"):
        assert text.split(",")[2] == answer
    for text, answer in pairs_of("name_from_pairs"):
        assert dict(pair.split("=") for pair in text.split("; "))["name"] == answer
    for text, answer in pairs_of("age_from_sentence"):
        assert "".join(filter(str.isdigit, text)) == answer


def test_formats() -> None:
    assert all(answer.split("_") == text.split(", ") for text, answer in pairs_of("underscores_list"))
    assert all(answer.split(" ")[::-1] == text.split(" ") for text, answer in pairs_of("reverse_words"))
    assert all(answer[1:-1] == text and answer[0] + answer[-1] == "[]" for text, answer in pairs_of("brackets_list"))
    assert all(answer.replace('"', "") == text and '"' in answer for text, answer in pairs_of("quotes_words"))


def test_sentiment() -> None:
    known = dict(pairs_of("good_bad_word", 2000))
    assert known["happy"] == "good" and known["awful"] == "bad" and known["very boring"] == "bad"
    words = dict(pairs_of("sentiment_word", 2000))
    for text, answer in pairs_of("thumbs_sentence"):
        expected = {"positive": "thumbs up", "negative": "thumbs down"}[words[text.split()[-1]]]
        assert answer == expected


def test_bilingual() -> None:
    known = {"spanish": ("house", "casa"), "french": ("water", "eau"), "german": ("dog", "Hund")}
    for language, (english, foreign) in known.items():
        forward = dict(pairs_of(f"english_to_{language}"))
        backward = dict(pairs_of(f"{language}_to_english"))
        assert forward[english] == foreign
        assert len(forward) >= 100 and {word: meaning for meaning, word in forward.items()} == backward
    assert dict(pairs_of("english_to_italian"))["milk"] == "latte"


def test_sequences() -> None:
    for name, step in (("next_number", 1), ("next_even", 2), ("next_odd", 2), ("next_by_five", 5)):
        for text, answer in pairs_of(name):
            assert int(answer) == int(text.split(", ")[-1]) + step
    for name, step in (("previous_number", 1), ("previous_even", 2), ("previous_by_five", 5)):
        for text, answer in pairs_of(name):
            assert int(answer) == int(text.split(", ")[0]) - step >= 0
    assert all(int(answer) % 2 == 0 for _, answer in pairs_of("previous_even"))
    assert all(ord(answer) == ord(text[-1]) + 1 for text, answer in pairs_of("next_letter"))
    assert all(ord(answer) == ord(text[0]) - 1 and answer.isalpha() for text, answer in pairs_of("previous_letter"))
