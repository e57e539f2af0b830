"""All further tasks, and the wording of every family."""

from icmlora_cli.tasks.builtin.dense import (
    cases,
    clock,
    counting,
    dates,
    edits,
    extracts,
    facts,
    feelings,
    formats,
    inflection,
    kinds,
    languages,
    letters,
    measures,
    numerals,
    ordering,
    picks,
    runs,
    sums,
)
from icmlora_cli.tasks.builtin.dense.build import WordingOf
from icmlora_cli.tasks.builtin.types import BuiltinTask

_MODULES = (
    *(picks, letters, cases, edits, ordering, counting, numerals, sums, runs, dates, clock, measures),
    *(inflection, kinds, extracts, formats, feelings, languages, facts),
)

WORDINGS: dict[str, WordingOf] = {
    picks.FAMILY: picks.wording,
    letters.FAMILY: letters.wording,
    cases.FAMILY: cases.wording,
    edits.FAMILY: edits.wording,
    ordering.WORDS_FAMILY: ordering.wording,
    ordering.NUMBERS_FAMILY: ordering.wording,
    counting.FAMILY: counting.wording,
    numerals.FAMILY: numerals.wording,
    sums.FAMILY: sums.wording,
    sums.PROPERTY_FAMILY: sums.property_wording,
    runs.FAMILY: runs.wording,
    dates.FAMILY: dates.wording,
    dates.CALENDAR_FAMILY: dates.calendar_wording,
    clock.FAMILY: clock.wording,
    measures.FAMILY: measures.wording,
    inflection.FAMILY: inflection.wording,
    kinds.ODD_FAMILY: kinds.odd_wording,
    kinds.MEMBER_FAMILY: kinds.member_wording,
    kinds.NAME_FAMILY: kinds.name_wording,
    extracts.FAMILY: extracts.wording,
    formats.FAMILY: formats.wording,
    feelings.FAMILY: feelings.wording,
    languages.FAMILY: languages.wording,
    facts.FAMILY: facts.wording,
}
"""The phrases of a family, by the axes of a task."""


def further_tasks() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of every family, in a stable order."""
    return tuple(task for module in _MODULES for task in module.dense())
