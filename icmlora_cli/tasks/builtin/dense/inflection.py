"""More inflection: back to the base form, other short phrases, and words made with an ending."""

from collections.abc import Callable, Mapping

from icmlora_cli.tasks.builtin.dense.build import Axes, further, table
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.inflect import article, comparative, ing, past, plural, superlative, third_person
from icmlora_cli.tasks.builtin.types import BuiltinTask
from icmlora_cli.tasks.builtin.words_adjectives import LONG_ADJECTIVES, SHORT_ADJECTIVES, UN_ADJECTIVES
from icmlora_cli.tasks.builtin.words_kinds import ANIMALS, FRUITS
from icmlora_cli.tasks.builtin.words_nouns import NOUNS
from icmlora_cli.tasks.builtin.words_verbs import VERBS

FAMILY = "morphology"

_NOUNS = tuple(dict.fromkeys(NOUNS + ANIMALS + FRUITS))
_ADJECTIVES = SHORT_ADJECTIVES + LONG_ADJECTIVES

_FORMS: dict[str, tuple[str, str, str]] = {
    "plural": ("a [singular |]noun", "noun", "plural[ form|]|form for more than one"),
    "past": ("a verb|a verb in its base form", "verb", "[simple |]past tense|past[ form|]|past-tense form"),
    "ing": ("a verb|a verb in its base form", "verb", "-ing form|present participle|form [that ends|ending] in -ing"),
    "third_person": (
        "a verb|a verb in its base form",
        "verb",
        'form [used |]after "she"|third person singular|he/she/it form',
    ),
    "comparative": ("an adjective", "adjective", "comparative[ form|]"),
    "superlative": ("an adjective", "adjective", "superlative[ form|]"),
    "negated": ("an adjective", "adjective", "opposite [made |]with [the prefix |]un-|negated form starting with un-"),
    "singular": ("a plural noun|a noun in the plural", "noun", "singular[ form|]|form for only one"),
    "base_of_past": (
        "a past-tense verb|a verb in the past",
        "verb",
        "base form|present-tense base form|infinitive without to",
    ),
    "base_of_ing": (
        "a verb [with|ending in] -ing|an -ing form",
        "verb",
        "base form|form without -ing, as in a dictionary",
    ),
    "base_of_third": (
        "a verb in its he/she/it form|a third-person verb",
        "verb",
        "base form|form without the s, as in a dictionary",
    ),
    "base_of_comparative": ("a comparative adjective|a comparative", "adjective", "base form|plain form, not compared"),
    "base_of_superlative": ("a superlative adjective|a superlative", "adjective", "base form|plain form, not compared"),
    "base_of_negated": (
        "an adjective [with|that starts with] un-",
        "adjective",
        "positive form without un-|form without the prefix un-",
    ),
    "comparative_of_superlative": ("a superlative adjective|a superlative", "adjective", "comparative[ form|]"),
    "ing_of_past": ("a past-tense verb|a verb in the past", "verb", "-ing form"),
    "past_of_ing": ("a verb ending in -ing|an -ing form", "verb", "[simple |]past tense"),
    "infinitive": ("a verb", "verb", 'infinitive with "to"'),
}
_PHRASES: dict[str, tuple[str, str]] = {
    "plural": (
        "a phrase with one [thing|noun]",
        'change "one" to "two" and make the noun plural|turn one into two, with the noun in the plural',
    ),
    "past": ("a [pronoun|subject] and a verb", "put the [verb|phrase] [in|into] the [simple |]past tense"),
    "ing": ("a [pronoun|subject] and a verb", "put the [verb|phrase] [in|into] the present continuous with am or are"),
    "third_person": ("a [pronoun|subject] and a verb", 'change the [subject|pronoun] to "she" and make the verb agree'),
    "comparative": (
        "an article, an adjective and a noun",
        "put the adjective of the phrase [in|into] the comparative, after a or an",
    ),
    "superlative": (
        "an article, an adjective and a noun",
        'put the adjective of the phrase [in|into] the superlative, after "the"',
    ),
    "many": ("a phrase with one [thing|noun]", 'change "one" to "many" and make the noun plural'),
    "three": ("a phrase with one [thing|noun]", 'change "one" to "three" and make the noun plural'),
    "bare_plural": (
        "a noun with a or an",
        "drop the article and make the noun plural|turn the phrase into the bare plural of its noun",
    ),
    "future": ("a [pronoun|subject] and a verb", 'put the [verb|phrase] [in|into] the future with "will"'),
    "can": ("a [pronoun|subject] and a verb", 'add "can" before the verb'),
    "negative": (
        "a [pronoun|subject] and a verb",
        'make the [phrase|sentence] negative with "do not"|negate the [phrase|sentence] with "do not"',
    ),
    "question": (
        "a [pronoun|subject] and a verb",
        'turn the [phrase|sentence] into a question with "do"[ and a question mark|]',
    ),
    "he": ("a [pronoun|subject] and a verb", 'change the [subject|pronoun] to "he" and make the verb agree'),
    "she_past": ('"she" and a verb', "put the [verb|phrase] [in|into] the [simple |]past tense, keeping she"),
    "singular": ("a phrase with two things", 'change "two" to "one" and make the noun singular'),
    "must": ("a [pronoun|subject] and a verb", 'add "must" before the verb'),
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    form = axes["form"]
    if axes["unit"] == "phrase":
        given, do = _PHRASES[form]
        return Wording(given, do)
    given, noun, result = _FORMS[form]
    result, the = f"[{result}]", f"the [{noun}|{noun}|given {noun}|input {noun}]"
    return Wording(
        given,
        f"[write|give|output|return] the {result} of {the}|[turn|change|put] {the} [into|into] [its|the]"
        f" {result}|{{give}} [its|the] {result}",
        f"the {result} of {the}|its {result}",
        f"what is the {result} of {the}",
    )


def _inverse(
    words: tuple[str, ...], inflect: Callable[[str], str], back: Callable[[str], str] = str
) -> Mapping[str, str]:
    """Map each form to its base, leaving out forms that two words share or that equal their base."""
    forms = [inflect(word) for word in words]
    return {
        form: back(word) for form, word in zip(forms, words, strict=True) if forms.count(form) == 1 and form != word
    }


def _word_tables() -> dict[str, Mapping[str, str]]:
    return {
        "singular": _inverse(_NOUNS, plural),
        "base_of_past": _inverse(VERBS, past),
        "base_of_ing": _inverse(VERBS, ing),
        "base_of_third": _inverse(VERBS, third_person),
        "base_of_comparative": _inverse(_ADJECTIVES, comparative),
        "base_of_superlative": _inverse(_ADJECTIVES, superlative),
        "base_of_negated": _inverse(UN_ADJECTIVES, lambda word: f"un{word}"),
        "comparative_of_superlative": _inverse(_ADJECTIVES, superlative, comparative),
        "ing_of_past": _inverse(VERBS, past, ing),
        "past_of_ing": _inverse(VERBS, ing, past),
        "infinitive": {verb: f"to {verb}" for verb in VERBS},
    }


def _clauses(answer: Callable[[str, str], str]) -> Mapping[str, str]:
    return {f"{subject} {verb}": answer(subject, verb) for subject in ("I", "you", "we", "they") for verb in VERBS}


def _phrase_tables() -> dict[str, Mapping[str, str]]:
    single = {plural(noun): noun for noun in _NOUNS}
    return {
        "many": {f"one {noun}": f"many {plural(noun)}" for noun in _NOUNS},
        "three": {f"one {noun}": f"three {plural(noun)}" for noun in _NOUNS},
        "bare_plural": {f"{article(noun)} {noun}": plural(noun) for noun in _NOUNS},
        "singular": {f"two {many}": f"one {noun}" for many, noun in single.items()},
        "future": _clauses(lambda subject, verb: f"{subject} will {verb}"),
        "can": _clauses(lambda subject, verb: f"{subject} can {verb}"),
        "must": _clauses(lambda subject, verb: f"{subject} must {verb}"),
        "negative": _clauses(lambda subject, verb: f"{subject} do not {verb}"),
        "question": _clauses(lambda subject, verb: f"do {subject} {verb}?"),
        "he": _clauses(lambda _, verb: f"he {third_person(verb)}"),
        "she_past": {f"she {third_person(verb)}": f"she {past(verb)}" for verb in VERBS},
    }


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; none makes a continuous or a superlative phrase, which are held out."""
    tables = [(form, "word", rows) for form, rows in _word_tables().items()]
    tables += [(form, "phrase", rows) for form, rows in _phrase_tables().items()]
    return tuple(
        further(FAMILY, f"{form}_{unit}", {"form": form, "unit": unit}, *table(rows), wording)
        for form, unit, rows in tables
    )
