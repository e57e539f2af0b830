"""Answers of the built-in tasks on words and text, recomputed independently."""

import json

import pytest

from icmlora_cli.tasks.builtin import builtin_task


def pairs_of(name: str, n: int = 400) -> list[tuple[str, str]]:
    return [(example.input, example.output) for example in builtin_task(name).examples(n)]


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
