"""PEFT's ``rank_pattern`` and ``alpha_pattern``: regular expressions over module names.

The rule is PEFT's own (``peft.utils.other.get_pattern_key``): the first expression that matches a whole name, or all of
it behind some dot, gives the value. Expressions come from strangers, so those that could take for ever are refused.
"""

import math
import re
from dataclasses import dataclass

from icmlora_cli.errors import CorruptFileError

MOST = 5000  # expressions
LONGEST = 300  # characters of one
UNBOUNDED = 3  # repeats without an end in one expression; more of them are slow on long names
HINT = "write modules' names and numbers there in adapter_config.json, without nested repeats"
NESTED = re.compile(r"\)[*+{]")  # a repeated group: the way to catastrophic backtracking


def exactly(module: str) -> str:
    """Return the expression that matches this module alone."""
    return f"^{re.escape(module)}"


@dataclass(frozen=True)
class Patterns:
    """Compiled expressions with their values, in the order in which they are tried."""

    items: tuple[tuple[re.Pattern[str], float], ...] = ()

    @classmethod
    def of(cls, value: object, name: str, where: str) -> "Patterns":
        """Return the patterns of a value of ``adapter_config.json``; None is no pattern.

        Args:
            value: expression to number.
            name: of the key, for messages.
            where: the file.

        Raises:
            CorruptFileError: if it is not a mapping to finite numbers, or an expression is broken or could take for
                ever.
        """
        if value is None:
            return cls()
        if not isinstance(value, dict) or len(value) > MOST:
            raise CorruptFileError(
                f"{name} is not a mapping of at most {MOST} expressions to numbers", where=where, hint=HINT
            )
        found = []
        for text, number in value.items():
            plain = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not plain or not math.isfinite(number):
                raise CorruptFileError(
                    f"{name}: the value of {text[:80]!r} is {str(number)[:40]}, not a number",
                    where=where,
                    hint=HINT,
                )
            found.append((_compiled(text, name, where), float(number)))
        return cls(tuple(found))

    def value(self, module: str, default: float) -> float:
        """Return the first match's value, else the default."""
        return next((number for pattern, number in self.items if pattern.match(module)), default)


def _compiled(text: str, name: str, where: str) -> re.Pattern[str]:
    repeats = sum(text.count(sign) for sign in "*+{")
    if len(text) > LONGEST or NESTED.search(text) or repeats > UNBOUNDED:
        raise CorruptFileError(
            f"{name}: the expression {text[:80]!r} could take for ever to match",
            where=where,
            hint=HINT,
        )
    try:
        return re.compile(rf"(.*\.)?({text})$")
    except (re.error, OverflowError, RecursionError) as error:
        raise CorruptFileError(
            f"{name}: {text[:80]!r} is not a regular expression: {error}", where=where, hint=HINT
        ) from error
