"""The pools of words that several families share."""

from icmlora_cli.tasks.builtin.words_adjectives import LONG_ADJECTIVES, SHORT_ADJECTIVES
from icmlora_cli.tasks.builtin.words_kinds import ANIMALS, FRUITS, VEGETABLES
from icmlora_cli.tasks.builtin.words_nouns import NOUNS
from icmlora_cli.tasks.builtin.words_verbs import VERBS

ALL_WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(NOUNS + ANIMALS + FRUITS + VEGETABLES + VERBS + SHORT_ADJECTIVES + LONG_ADJECTIVES)
)
"""Every lower-case word, once."""

SHORT_NOUNS: tuple[str, ...] = tuple(word for word in NOUNS if len(word) <= 6)
"""Nouns of at most six letters: a list of them stays a few tokens long."""

NUMBER_NAMES: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six")
"""Small numbers as the descriptions spell them."""
