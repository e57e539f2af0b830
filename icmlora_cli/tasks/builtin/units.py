"""Converting a quantity to a smaller unit."""

import random

from icmlora_cli.tasks.builtin.types import BuiltinTask, Draw, fill, make
from icmlora_cli.tasks.examples import Example

FAMILY = "units"
HELD_OUT = ("days_to_minutes", "kilometers_to_centimeters")
LARGEST = 400

_FACTORS = {
    ("hours", "minutes"): 60,
    ("minutes", "seconds"): 60,
    ("days", "hours"): 24,
    ("weeks", "days"): 7,
    ("years", "months"): 12,
    ("days", "minutes"): 1440,
    ("meters", "centimeters"): 100,
    ("centimeters", "millimeters"): 10,
    ("kilometers", "meters"): 1000,
    ("kilometers", "centimeters"): 100000,
    ("kilograms", "grams"): 1000,
}
_TEMPLATES = (
    "Convert {source} to {target}, writing the number and then the unit.",
    "Express the amount, which is in {source}, in {target} with the unit after it.",
    "Say how many {target} there are in the given {source}, followed by the unit.",
    "Turn a quantity in {source} into the equal quantity in {target}, unit included.",
    "Rewrite the number of {source} as a number of {target}, ending with the unit.",
)


def _draw(source: str, target: str) -> Draw:
    factor = _FACTORS[source, target]

    def draw(rng: random.Random) -> Example:
        amount = rng.randint(1, LARGEST)
        unit = source.removesuffix("s") if amount == 1 else source
        return Example(f"{amount} {unit}", f"{amount * factor} {target}")

    return draw


def tasks() -> tuple[BuiltinTask, ...]:
    """Return the tasks of this family."""
    return tuple(
        make(
            FAMILY,
            f"{source}_to_{target}",
            {"from": source, "to": target},
            fill(_TEMPLATES, source=source, target=target),
            _draw(source, target),
            HELD_OUT,
        )
        for source, target in _FACTORS
    )
