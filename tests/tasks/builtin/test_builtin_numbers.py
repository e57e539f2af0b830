"""Answers of the built-in tasks on lists, letters, numbers and time, recomputed independently."""

from datetime import date, datetime, timedelta

import pytest

from icmlora_cli.tasks.builtin import builtin_task

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
            assert all(items[place] < items[place + 1] for place in range(count - 1))
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
