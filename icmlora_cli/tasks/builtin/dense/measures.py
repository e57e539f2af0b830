"""More unit conversions: to a larger unit, between new units, and without the unit in the answer."""

from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import Axes, Source, further
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask

FAMILY = "units"

_FACTORS: dict[tuple[str, str], int] = {
    ("hours", "minutes"): 60,
    ("minutes", "seconds"): 60,
    ("days", "hours"): 24,
    ("weeks", "days"): 7,
    ("years", "months"): 12,
    ("meters", "centimeters"): 100,
    ("centimeters", "millimeters"): 10,
    ("kilometers", "meters"): 1000,
    ("kilograms", "grams"): 1000,
    ("liters", "milliliters"): 1000,
    ("tons", "kilograms"): 1000,
    ("decades", "years"): 10,
    ("centuries", "years"): 100,
    ("yards", "feet"): 3,
    ("dollars", "cents"): 100,
    ("pounds", "ounces"): 16,
    ("meters", "millimeters"): 1000,
    ("dozens", "pieces"): 12,
    ("grams", "milligrams"): 1000,
}
_CURATED = tuple(_FACTORS)[:9]


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    source, target, bare = axes["from"], axes["to"], axes.get("unit") == "no"
    written = (
        "[, without the unit|, as a bare number|, only the number]"
        if bare
        else "[ with the unit|, unit included|, followed by the unit||]"
    )
    return Wording(
        f"an amount [in|of] {source}|a number of {source}|a quantity in {source}",
        f"[convert|turn|change] [{source}|the {source}|the amount] [to|into] {target}{written}|[express|write"
        f"|give] the {source} in {target}{written}",
        f"the [same |]amount in {target}{written}|the number of {target} in the given {source}{written}",
        f"how many {target} are the {source}{' (only the number)' if bare else ''}",
    )


def _one(amount: int, unit: str) -> str:
    irregular = {"centuries": "century", "feet": "foot"}
    return f"{amount} {irregular.get(unit, unit.removesuffix('s')) if amount == 1 else unit}"


def _draw(unit: str, step: int) -> Source:
    return lambda rng: _one(rng.randint(1, 200) * step, unit)


def _times(factor: int, target: str, bare: bool) -> Callable[[str], str]:
    def answer(text: str) -> str:
        value = int(text.split(" ")[0]) * factor
        return str(value) if bare else _one(value, target)

    return answer


def _over(factor: int, target: str, bare: bool) -> Callable[[str], str]:
    def answer(text: str) -> str:
        value = int(text.split(" ")[0]) // factor
        return str(value) if bare else _one(value, target)

    return answer


def _task(source: str, target: str, draw: Source, answer: Callable[[str], str], bare: bool) -> BuiltinTask:
    ending = "_number" if bare else ""
    axes = {"from": source, "to": target, "unit": "no" if bare else "yes"}
    return further(FAMILY, f"{source}_to_{target}{ending}", axes, draw, answer, wording)


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family."""
    tasks = []
    for (source, target), factor in _FACTORS.items():
        if (source, target) not in _CURATED:
            tasks.append(_task(source, target, _draw(source, 1), _times(factor, target, False), False))
        if factor <= 100:
            tasks.append(_task(target, source, _draw(target, factor), _over(factor, source, False), False))
        if factor in (7, 10, 12, 60, 100):
            tasks.append(_task(source, target, _draw(source, 1), _times(factor, target, True), True))
    return tuple(tasks)
