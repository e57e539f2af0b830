"""More ways to read and write a date, and more answers about weekdays and months."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.calendar_names import WEEKDAYS
from icmlora_cli.tasks.builtin.dates import MONTHS
from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further, where
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask
from icmlora_cli.tasks.builtin.words_nouns import EVENTS

FAMILY = "dates"
CALENDAR_FAMILY = "calendar"

Day = tuple[int, int, int]

_WRITE: dict[str, Callable[[Day], str]] = {
    "iso": lambda day: f"{day[0]}-{day[1]:02}-{day[2]:02}",
    "slash": lambda day: f"{day[2]:02}/{day[1]:02}/{day[0]}",
    "dots": lambda day: f"{day[2]:02}.{day[1]:02}.{day[0]}",
    "long": lambda day: f"{day[2]} {MONTHS[day[1] - 1]} {day[0]}",
    "us": lambda day: f"{MONTHS[day[1] - 1]} {day[2]}, {day[0]}",
    "month": lambda day: MONTHS[day[1] - 1],
    "year": lambda day: str(day[0]),
    "day": lambda day: str(day[2]),
    "month_number": lambda day: str(day[1]),
    "short": lambda day: f"{day[2]} {MONTHS[day[1] - 1][:3]}",
}
_READ: dict[str, Callable[[str], Day]] = {
    "iso": lambda text: _numbers(text, "-"),
    "slash": lambda text: _numbers(text, "/")[::-1],
    "dots": lambda text: _numbers(text, ".")[::-1],
    "long": lambda text: _named(*text.split(" ")),
    "us": lambda text: _named(text.split(" ")[1].rstrip(","), text.split(" ")[0], text.split(" ")[2]),
}
_GIVEN = {
    "iso": "an ISO date|a date [written |]as year-month-day|a date like 2021-03-05",
    "slash": "a day/month/year date|a date [written |]as day/month/year|a date like 05/03/2021 (day first)",
    "dots": "a date [written |]as day.month.year|a date like 05.03.2021",
    "long": "a date like 5 March 2021|a date [written |]as day, month name and year",
    "us": "a date like March 5, 2021|an American date with the month's name",
}
_WANTED = {
    "iso": "in ISO [form|format] (year-month-day)|as year-month-day|like 2021-03-05",
    "slash": "as day/month/year|like 05/03/2021, day first",
    "dots": "as day.month.year|like 05.03.2021",
    "long": "as day, month name[,| and] year|like 5 March 2021|with the day first and the month's name, as in 5"
    " March 2021",
    "us": "as month name, day[,| and] year|like March 5, 2021|[in|the] American [style|way], as in March 5, 2021",
}
_PARTS = {
    "month": "[name of the month|month's name|month name]",
    "year": "[year|four-digit year]",
    "day": "[day of the month|day number]",
    "month_number": "[number of the month|month's number|month as a number]",
    "short": "day and the [three-letter|short] month name",
}
_PAIRS = (
    *(("iso", "slash"), ("iso", "dots"), ("iso", "day"), ("iso", "month_number"), ("slash", "iso"), ("slash", "day")),
    *(
        ("slash", "month_number"),
        ("slash", "dots"),
        ("dots", "iso"),
        ("dots", "long"),
        ("dots", "year"),
        ("dots", "day"),
    ),
    *(("long", "iso"), ("long", "slash"), ("long", "us"), ("long", "month"), ("long", "year"), ("long", "day")),
    *(("us", "iso"), ("us", "long"), ("us", "month"), ("us", "year"), ("us", "day"), ("long", "short")),
    *(("long", "month_number"), ("us", "month_number"), ("us", "slash")),
)


def _numbers(text: str, sep: str) -> Day:
    left, middle, right = (int(part) for part in text.split(sep))
    return left, middle, right


def _named(day: str, month: str, year: str) -> Day:
    return int(year), MONTHS.index(month) + 1, int(day)


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task on dates."""
    given, target = f"[{_GIVEN[axes['from']]}]", axes["to"]
    if target in _WANTED:
        how = f"[{_WANTED[target]}]"
        return Wording(given, f"[rewrite|write|give|reformat|output] the date {how}", f"the [same |]date {how}")
    part = _PARTS[target]
    of_date = "[of|in|from] the date"
    return Wording(
        given, f"{{pick}} [only |]the {part} {of_date}", f"the {part} {of_date}", f"what is the {part} {of_date}"
    )


def _draw(source: str) -> Source:
    return lambda rng: _WRITE[source]((rng.randint(1950, 2049), rng.randint(1, 12), rng.randint(1, 28)))


def _rewrite(source: str, target: str) -> Callable[[str], str]:
    return lambda text: _WRITE[target](_READ[source](text))


_ABOUT: dict[tuple[str, str], str] = {
    ("next", "weekday"): "[day|weekday] [after|following] the [one|day] [named|in the note]|next [day|weekday]",
    ("next", "month"): "month [after|following] the one [named|in the note]|next month",
    (
        "previous",
        "weekday",
    ): "[day|weekday] [before|preceding] the [one|day] [named|in the note]|previous [day|weekday]",
    ("previous", "month"): "month [before|preceding] the one [named|in the note]|previous month",
    ("number", "weekday"): "number of the weekday, [from 1 for Monday to 7 for Sunday|counting Monday as 1]",
    ("number", "month"): "number of the month[| from 1 to 12|, counting January as 1]",
    ("abbreviation", "weekday"): "three-letter [abbreviation|short form] of the weekday",
    ("abbreviation", "month"): "three-letter [abbreviation|short form] of the month",
    ("two_after", "weekday"): "[day|weekday] two days after the [one|day] [named|in the note]",
    ("two_before", "weekday"): "[day|weekday] two days before the [one|day] [named|in the note]",
    ("two_after", "month"): "month two months after the one [named|in the note]",
    ("two_before", "month"): "month two months before the one [named|in the note]",
    ("three_after", "month"): "month three months after the one [named|in the note]",
    ("name", "weekday"): "weekday [named |]in the note",
    ("name", "month"): "month [named |]in the note",
    ("event", "weekday"): "event [named |]in the note[|, without the day]",
    ("event", "month"): "event [named |]in the note[|, without the month]",
    ("from_number", "weekday"): "name of the weekday with the given number[,| (]Monday being 1[|)]",
    ("from_number", "month"): "name of the month with the given number",
    ("full", "weekday"): "full name of the abbreviated [weekday|day]",
    ("full", "month"): "full name of the abbreviated month",
    ("weekend", "weekday"): "",
    ("quarter", "month"): "quarter of the year (1 to 4) that the month is in",
    ("upper", "weekday"): "weekday of the note in [capital letters|uppercase]",
    ("upper", "month"): "month of the note in [capital letters|uppercase]",
}
_ABOUT[("from_number", "weekday")] = "name of the weekday with the given number, Monday being 1"


def calendar_wording(axes: Axes) -> Wording:
    """Return the phrases of a task on weekdays and months."""
    op, unit = axes["operation"], axes["unit"]
    given = f"a [short |]note with [an event and |]a/an {unit}|a note that names a {unit}|an event and its {unit}"
    if op == "weekend":
        choice = (
            '[answer|reply|write] "weekend" [if the day is|for] Saturday or Sunday[,| and] "weekday"'
            " [otherwise|for the other days]"
        )
        return Wording(
            given, choice, '"weekend" or "weekday", whichever the day is', "is the day a weekday or part of the weekend"
        )
    if op == "from_number":
        given = f"[an event and |]the number of a {unit}"
    if op == "full":
        given = f"a [short |]note with an abbreviated {unit}"
    about = f"the [{_ABOUT[op, unit]}]"
    return Wording(given, f"{{give}} {about}", about, f"what is {about}")


def _rotated(names: tuple[str, ...], by: int) -> Callable[[str], str]:
    return lambda name: names[(names.index(name) + by) % len(names)]


def _note(prep: str, names: tuple[str, ...]) -> Source:
    return lambda rng: f"{rng.choice(EVENTS)} {prep} {rng.choice(names)}"


def _last(answer: Callable[[str], str]) -> Callable[[str], str]:
    known = (*WEEKDAYS, *MONTHS)
    return where(lambda text: text.split(" ")[-1] in known, lambda text: answer(text.split(" ")[-1]))


def _calendar() -> list[tuple[str, str, Source, Callable[[str], str]]]:
    rows: list[tuple[str, str, Source, Callable[[str], str]]] = []
    for unit, prep, names in (("weekday", "on", WEEKDAYS), ("month", "in", MONTHS)):
        note, numbers = _note(prep, names), _numbered(unit, len(names))
        shorts = _note(prep, tuple(name[:3] for name in names if len(name) > 3))
        rows += [
            ("two_after", unit, note, _last(_rotated(names, 2))),
            ("two_before", unit, note, _last(_rotated(names, -2))),
            ("name", unit, note, _last(str)),
            ("event", unit, note, where(_dated, lambda text: text.split(" ")[0])),
            ("upper", unit, note, _last(str.upper)),
            ("from_number", unit, numbers, _by_number(names)),
            ("full", unit, shorts, _from_short(names)),
        ]
    rows.append(("three_after", "month", _note("in", MONTHS), _last(_rotated(MONTHS, 3))))
    rows.append(("quarter", "month", _note("in", MONTHS), _last(lambda name: str(MONTHS.index(name) // 3 + 1))))
    rows.append(
        ("weekend", "weekday", _weekend_note, _last(lambda name: "weekend" if name.startswith("S") else "weekday"))
    )
    return rows


def _dated(text: str) -> bool:
    return text.split(" ")[1] in ("on", "in")


def _weekend_note(rng: random.Random) -> str:
    return f"{rng.choice(EVENTS)} on {rng.choice(WEEKDAYS[5:] if rng.random() < 0.5 else WEEKDAYS[:5])}"


def _numbered(unit: str, count: int) -> Source:
    return lambda rng: f"{rng.choice(EVENTS)} in {unit} {rng.randint(1, count)}".replace("in weekday", "on weekday")


def _by_number(names: tuple[str, ...]) -> Callable[[str], str]:
    return lambda text: names[int(text.split(" ")[-1]) - 1]


def _from_short(names: tuple[str, ...]) -> Callable[[str], str]:
    known = {name[:3]: name for name in names}
    return lambda text: known[text.split(" ")[-1]]


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of both families."""
    dated = (
        further(
            FAMILY,
            f"{source}_date_to_{target}",
            {"from": source, "to": target},
            _draw(source),
            _rewrite(source, target),
            wording,
        )
        for source, target in _PAIRS
    )
    named = (
        further(
            CALENDAR_FAMILY, f"{unit}_{op}_of_note", {"operation": op, "unit": unit}, source, answer, calendar_wording
        )
        for op, unit, source, answer in _calendar()
    )
    return (*dated, *named)
