"""More answers about a clock time."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further, where
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask

FAMILY = "times"

_GIVEN = {
    "24h": "a [24-hour [clock |]time|time on the 24-hour clock]|a time like 15:20",
    "12h": "a time with AM or PM|a 12-hour [clock |]time|a time like 3:20 PM",
}
_SHIFTS = {
    "hour_later": (60, "[one|an] hour later"),
    "hour_earlier": (-60, "[one|an] hour earlier"),
    "two_hours_later": (120, "[two|2] hours later"),
    "three_hours_later": (180, "[three|3] hours later"),
    "half_hour_later": (30, "[half an hour|thirty minutes|30 minutes] later"),
    "ten_minutes_later": (10, "[ten|10] minutes later"),
    "ten_minutes_earlier": (-10, "[ten|10] minutes earlier"),
    "minute_later": (1, "[one|a] minute later"),
    "twelve_hours_later": (720, "[twelve|12] hours later"),
}
_OTHER = {
    "hour": (
        "{give} the hour [of the time|only]|{pick} the hour [digits|number] of the time",
        "the hour of the time",
        "what is the hour of the time",
    ),
    "minutes": (
        "{give} the minutes of the time|{pick} the [minute digits|two digits of the minutes]",
        "the minutes of the time[, two digits|]",
        "what are the minutes of the time",
    ),
    "am_pm": (
        "[say|tell|write] [whether|if] the time is AM or PM|[answer|reply] AM or PM for the time",
        "AM or PM, whichever the time is",
        "is the time AM or PM",
    ),
    "afternoon": (
        "[answer|reply|write] yes if the time is [noon or later|in the second half of the day|12:00 or later],"
        " otherwise no",
        '"yes" for a time [at noon or later|from 12:00 on], "no" for [an earlier|a morning] one',
        "is the time noon or later (yes or no)",
    ),
    "full_hour": (
        "set the minutes of the time to zero|{rewrite} the time with its minutes set to 00",
        "the time with its minutes set to [zero|00]",
        "",
    ),
    "dot": (
        "{rewrite} the time with a dot instead of the colon|replace the colon of the time by a dot",
        "the time with a dot [instead of|in place of] the colon",
        "",
    ),
    "h": (
        "{rewrite} the time with the letter h instead of the colon|replace the colon of the time by an h",
        "the time with an h [instead of|in place of] the colon",
        "",
    ),
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    op, clock = axes["operation"], axes["clock"]
    given = f"[{_GIVEN[clock]}]"
    if op == "convert":
        to = (
            "on the [12-hour clock[ with AM or PM|]|AM/PM clock]"
            if clock == "24h"
            else "on the 24-hour clock|in 24-hour [format|form]"
        )
        target = "[12-hour time|AM/PM time]" if clock == "24h" else "24-hour time"
        do = f"[write|rewrite|give] the [same |]time [{to}]|[convert|turn|change] the time [to|into] {target}"
        return Wording(given, do, f"the same time [{to}]")
    if op in _SHIFTS:
        later = _SHIFTS[op][1]
        do = f"{{give}} the time {later}[ in the same format|]|move the time to {later}"
        return Wording(given, do, f"the time {later}[ in the same format|]", f"what time is it {later}")
    return Wording(given, *_OTHER[op])


def _show(clock: str, total: int) -> str:
    hour, minute = divmod(total % 1440, 60)
    if clock == "24h":
        return f"{hour:02}:{minute:02}"
    return f"{(hour - 1) % 12 + 1}:{minute:02} {'AM' if hour < 12 else 'PM'}"


def _read(clock: str, text: str) -> int:
    if clock == "24h":
        hour, minute = text.split(":")
        return int(hour) * 60 + int(minute)
    time, half = text.split(" ")
    hour, minute = time.split(":")
    return (int(hour) % 12 + 12 * (half == "PM")) * 60 + int(minute)


def _draw(clock: str) -> Source:
    return lambda rng: _show(clock, rng.randrange(1440))


def _shift(clock: str, by: int) -> Callable[[str], str]:
    return lambda text: _show(clock, _read(clock, text) + by)


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; an hour later on the 12-hour clock is held out."""
    curated = {("hour_later", "24h"), ("hour_later", "12h")}
    rows: list[tuple[str, str, Callable[[str], str]]] = [
        (op, clock, _shift(clock, by))
        for op, (by, _) in _SHIFTS.items()
        for clock in _GIVEN
        if (op, clock) not in curated
    ]
    rows += [
        ("am_pm", "24h", lambda text: "AM" if _read("24h", text) < 720 else "PM"),
        ("am_pm", "12h", where(lambda text: text.endswith(("AM", "PM")), lambda text: text[-2:])),
        ("afternoon", "24h", lambda text: "no" if _read("24h", text) < 720 else "yes"),
        ("afternoon", "12h", lambda text: "no" if _read("12h", text) < 720 else "yes"),
        ("full_hour", "24h", lambda text: f"{text[:2]}:00"),
        ("full_hour", "12h", lambda text: f"{text.split(':')[0]}:00 {text[-2:]}"),
        ("dot", "24h", where(lambda text: ":" in text, lambda text: text.replace(":", "."))),
        ("h", "24h", where(lambda text: ":" in text, lambda text: text.replace(":", "h"))),
    ]
    return tuple(
        further(FAMILY, f"{op}_{clock}", {"operation": op, "clock": clock}, _draw(clock), answer, wording)
        for op, clock, answer in rows
    )
