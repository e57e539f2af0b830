"""PEFT's ``rank_pattern`` and ``alpha_pattern``: regular expressions over module names.

The rule is PEFT's own (``peft.utils.other.get_pattern_key``): the first expression that matches a whole name, or all of
it behind some dot, gives the value. Expressions come from strangers: RE2 matches them in time that is linear in the
name, whatever they are, and plain names, which are most of them, are looked up. A dot in a plain name is a dot.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import re2

from icmlora_cli.disk.files import is_object
from icmlora_cli.errors import CorruptFileError

MOST = 65536  # plain names
MOST_EXPRESSIONS = 64  # that are not plain names
LONGEST = 300  # characters of one
MEMORY = 1 << 18  # bytes of one compiled expression
HINT = "write modules' names and numbers there in adapter_config.json"
PLAIN = re.compile(r"(?P<whole>\^?)(?P<name>(\w|\\?[.-])+)", re.ASCII)
Matches = Callable[[str], object]
"""Gives a match at the start of a name, or None."""


def exactly(module: str) -> str:
    """Return the expression that matches this module alone."""
    return f"^{re.escape(module)}"


def finite(value: object) -> float | None:
    """Return a number of a foreign configuration, or None where it is none, or not finite in fp64."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Patterns:
    """Expressions with their values, in the order in which they are tried.

    Args:
        items: expression to value.
        names: plain name to the place and value of its expression; with ``^`` before it, where it is a whole name.
        expressions: place, compiled expression and value of the others.
    """

    items: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    expressions: tuple[tuple[int, Matches, float], ...] = ()

    @classmethod
    def of(cls, value: object, name: str, where: str) -> "Patterns":
        """Return the patterns of a value of ``adapter_config.json``; None is no pattern.

        Args:
            value: expression to number.
            name: The key of the configuration, for messages.
            where: the file.

        Raises:
            CorruptFileError: if it is not a mapping to finite numbers, or an expression is broken or too large.
        """
        if value is None:
            return cls()
        if not is_object(value) or len(value) > MOST:
            raise CorruptFileError(
                f"{name} is not a mapping of at most {MOST} expressions to numbers", where=where, hint=HINT
            )
        items: dict[str, float] = {}
        names: dict[str, tuple[int, float]] = {}
        expressions: list[tuple[int, Matches, float]] = []
        for place, (text, number) in enumerate(value.items()):
            checked = finite(number)
            if checked is None:
                raise CorruptFileError(
                    f"{name}: the value of {text[:80]!r} is {str(number)[:40]}, not a number", where=where, hint=HINT
                )
            items[text] = checked
            plain = PLAIN.fullmatch(text) if len(text) <= LONGEST else None
            if plain:
                names.setdefault(plain["whole"] + plain["name"].replace("\\", ""), (place, checked))
            elif len(expressions) == MOST_EXPRESSIONS:
                raise CorruptFileError(
                    f"{name} has more than {MOST_EXPRESSIONS} expressions that are no plain names, {text[:80]!r} "
                    "one of them",
                    where=where,
                    hint=HINT,
                )
            else:
                expressions.append((place, _compiled(text, name, where), checked))
        return cls(items, names, tuple(expressions))

    def value(self, module: str, default: float) -> float:
        """Return the first match's value, else the default."""
        keys = [f"^{module}", module, *(module[dot.end() :] for dot in re.finditer(r"\.", module))]
        found = [self.names[key] for key in keys if key in self.names]
        first = next(((place, number) for place, matches, number in self.expressions if matches(module)), None)
        found += [first] if first else []
        return min(found)[1] if found else default


def _compiled(text: str, name: str, where: str) -> Matches:
    if len(text) > LONGEST:
        raise CorruptFileError(
            f"{name}: the expression {text[:80]!r} is longer than {LONGEST} characters", where=where, hint=HINT
        )
    options = re2.Options()
    options.max_mem, options.log_errors = MEMORY, False
    try:
        match: Matches = re2.compile(rf"(.*\.)?({text})$", options).match
    except (re2.error, UnicodeEncodeError) as error:
        raise CorruptFileError(
            f"{name}: {text[:80]!r} is no regular expression that RE2 knows, or too large a one", where=where, hint=HINT
        ) from error
    return match
