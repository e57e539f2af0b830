"""More sums with one fixed number, products, and properties of a number; more ways to write a number."""

import random
from collections.abc import Callable

from icmlora_cli.tasks.builtin.dense.build import COUNT_WORDS, Axes, Source, further, where
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.numbers import number_words
from icmlora_cli.tasks.builtin.types import BuiltinTask

FAMILY = "arithmetic"
PROPERTY_FAMILY = "number_property"

_OPS: dict[str, tuple[str, str, str]] = {
    "add": (
        "two numbers[ joined by a plus|]|a sum of two numbers",
        "add the [two |]numbers|add them up",
        "the sum of the [two |]numbers|their sum",
    ),
    "subtract": (
        "a difference of two numbers|two numbers[ with a minus between|]",
        "subtract the second number from the first|take the second number away from the first",
        "the first number minus the second|the difference of the two numbers",
    ),
    "multiply": (
        "two numbers[ with a times sign|]|a product",
        "multiply the [two |]numbers",
        "the product of the [two |]numbers",
    ),
    "add_three": (
        "a sum of three numbers|three numbers",
        "add [all |]the three numbers|add all three numbers",
        "the sum of [the|all] three numbers",
    ),
    "double": (
        "a number|one number",
        "double the number|multiply the number by two",
        "twice the [given |]number|the number doubled|two times the number",
    ),
    "increment": (
        "a number|one number",
        "add [one|1] to the number|increase the number by [one|1]",
        "the number plus [one|1]|the next whole number",
    ),
    "decrement": (
        "a number|one number",
        "subtract [one|1] from the number|decrease the number by [one|1]",
        "the number minus [one|1]|one less than the number",
    ),
    "half": ("an even number", "halve the number|divide the number by [two|2]", "half [of |]the [given |]number"),
    "triple": (
        "a number|one number",
        "triple the number|multiply the number by [three|3]",
        "three times the number|the number tripled",
    ),
    "square": (
        "a [small |]number",
        "square the number|multiply the number by itself",
        "the square of the number|the number squared|the number times itself",
    ),
    "negate": (
        "a number",
        "put a minus sign before the number|negate the number",
        "the number with a minus sign|the negative of the number",
    ),
}
_FORMS = {
    "digits": "in digits|as a number|in figures|as digits",
    "words": "in [English |]words|spelled out|as [a number word|number words]|written in words",
}


def wording(axes: Axes) -> Wording:
    """Return the phrases of an arithmetic task."""
    op, form, answer = axes["operation"], axes["form"], axes.get("answer", axes["form"])
    verb, _, amount = op.rpartition("_")
    known = op in _OPS
    if known:
        given, do, result = _OPS[op]
    else:
        k = _say(amount)
        given = "a number|one number"
        do, result = {
            "plus": (
                f"add {k} to the number|increase the number by {k}",
                f"the number plus {k}|{k} more than the number",
            ),
            "minus": (
                f"subtract {k} from the number|take {k} away from the number|decrease the number by {k}",
                f"the number minus {k}|{k} less than the number",
            ),
            "times": (f"multiply the number by {k}", f"the number times {k}|{k} times the number"),
        }[verb]
    given, do, result = f"[{given}]", f"[{do}]", f"[{result}]"
    tail = f"[{_FORMS[answer]}]"
    shown = f"[ {_FORMS[form]}]" if form == "words" or answer == "words" else ""
    if answer == "words":
        return Wording(
            f"{given}{shown}",
            f"{do} and [answer|reply|write the result] {tail}|{do}, answering {tail}",
            f"{result}[,|] {tail}",
        )
    how = f"[ and [answer|reply] {tail}||||]"
    return Wording(f"{given}{shown}", f"{do}{how}", f"{result}[[,|] {tail}||]", f"what is {result}")


def _say(amount: str) -> str:
    value = int(amount)
    word = COUNT_WORDS[value] if value <= 10 else number_words(value) if value < 1000 else amount
    return f"[{word}|{amount}|{amount}]"


_PROPERTIES: dict[str, tuple[str, str, str]] = {
    "last_digit": (
        "{pick} the last digit of the number",
        "the [last|final] digit of the number",
        "what is the [last|final] digit of the number",
    ),
    "first_digit": (
        "{pick} the first digit of the number",
        "the [first|leading] digit of the number",
        "what is the first digit of the number",
    ),
    "even_odd": (
        '[say|tell|decide|write] [whether|if] the number is even or odd|[answer|reply] "even" or "odd" for the'
        " number|classify the number as even or odd",
        '"even" or "odd", [whichever|as] the number is',
        "is the number even or odd",
    ),
    "even_yes_no": (
        "[answer|reply|say|write] yes if the number is even[, otherwise no| and no if it is odd]",
        '"yes" for an even number, "no" for an odd one',
        "is the number even (yes or no)",
    ),
    "odd_yes_no": (
        "[answer|reply|say|write] yes if the number is odd[, otherwise no| and no if it is even]",
        '"yes" for an odd number, "no" for an even one',
        "is the number odd (yes or no)",
    ),
    "above_fifty": (
        "[answer|reply|say|write] yes if the number is [greater than|above|larger than|over] [50|fifty], otherwise no",
        '"yes" for a number above [50|fifty], "no" for any other',
        "is the number [above|greater than] [50|fifty] (yes or no)",
    ),
    "above_hundred": (
        "[answer|reply|say|write] yes if the number is [greater than|above|larger than|over] [100|one hundred],"
        " otherwise no",
        '"yes" for a number above [100|one hundred], "no" for any other',
        "is the number [above|greater than] [100|one hundred] (yes or no)",
    ),
    "high_low": (
        '[answer|reply|write] "high" for a number above [50|fifty] and "low" [otherwise|for any other]',
        '"high" if the number is above [50|fifty], else "low"',
        "",
    ),
    "round_ten": (
        "round the number to the nearest [ten|multiple of ten]",
        "the number rounded to the nearest ten",
        "what is the number rounded to the nearest ten",
    ),
    "percent": (
        "put a percent sign after the number|{rewrite} the number as a percentage",
        "the number [with|followed by] a percent sign",
        "",
    ),
    "dollars": (
        "put a dollar sign [before|in front of] the number|{rewrite} the number as an amount in dollars with the sign",
        "the number with a dollar sign in front",
        "",
    ),
    "decimal": (
        "write the number with one decimal, a zero|put a point and a zero after the number",
        "the number followed by a point and a zero",
        "",
    ),
    "spaced": (
        "[write|put] the digits of the number [apart, with|with] spaces between them",
        "the digits of the number separated by spaces",
        "",
    ),
    "swap_digits": (
        "swap the two digits of the number|[write|give] the two digits of the number in reverse",
        "the number with its two digits swapped",
        "",
    ),
    "repeat": (
        "[write|repeat] the number twice, with a space between",
        "the number [twice|two times], with a space between",
        "",
    ),
    "sign": (
        '[answer|reply|write] "positive" or "negative" for the number|say whether the number is positive or negative',
        '"positive" or "negative", as the number is',
        "is the number positive or negative",
    ),
}


def property_wording(axes: Axes) -> Wording:
    """Return the phrases of a task on one property of a number."""
    do, result, ask = _PROPERTIES[axes["property"]]
    given = "a two-digit number" if axes["property"] == "swap_digits" else "a number|a [whole|single] number|one number"
    return Wording(given, do, result, ask)


def _number(low: int, high: int, step: int = 1) -> Source:
    return lambda rng: str(rng.randrange(low, high + 1, step))


def _signed(rng: random.Random) -> str:
    return str(rng.choice((-1, 1)) * rng.randint(1, 300))


def _not_on_five(rng: random.Random) -> str:
    tens, ones = rng.randint(1, 49), rng.choice((1, 2, 3, 4, 6, 7, 8, 9))
    return str(tens * 10 + ones)


def _two_digits(rng: random.Random) -> str:
    return str(rng.randint(1, 9) * 10 + rng.randint(1, 9))


def _yes(test: Callable[[int], bool], yes: str = "yes", no: str = "no") -> Callable[[str], str]:
    return lambda text: yes if test(int(text)) else no


def _properties() -> tuple[tuple[str, Source, Callable[[str], str]], ...]:
    some = _number(10, 999)
    return (
        ("last_digit", some, where(str.isdigit, lambda text: text[-1])),
        ("first_digit", some, where(str.isdigit, lambda text: text[0])),
        ("even_odd", some, _yes(lambda value: value % 2 == 0, "even", "odd")),
        ("even_yes_no", some, _yes(lambda value: value % 2 == 0)),
        ("odd_yes_no", some, _yes(lambda value: value % 2 == 1)),
        ("above_fifty", _number(1, 100), _yes(lambda value: value > 50)),
        ("above_hundred", _number(1, 200), _yes(lambda value: value > 100)),
        ("high_low", _number(1, 100), _yes(lambda value: value > 50, "high", "low")),
        ("round_ten", _not_on_five, lambda text: str((int(text) + 5) // 10 * 10)),
        ("percent", _number(1, 300), where(str.isdigit, lambda text: f"{text}%")),
        ("dollars", _number(1, 500), where(str.isdigit, lambda text: f"${text}")),
        ("decimal", _number(1, 500), where(str.isdigit, lambda text: f"{text}.0")),
        ("spaced", _number(100, 9999), where(str.isdigit, " ".join)),
        ("swap_digits", _two_digits, where(str.isdigit, lambda text: text[::-1])),
        ("repeat", _number(1, 300), where(str.isdigit, lambda text: f"{text} {text}")),
        ("sign", _signed, _yes(lambda value: value > 0, "positive", "negative")),
    )


def _values() -> dict[str, int]:
    return {number_words(value): value for value in range(1000)}


_VALUES = _values()


def _unary(compute: Callable[[int], int], form: str, answer: str) -> Callable[[str], str]:
    def run(text: str) -> str:
        if (form == "words") != (text in _VALUES):
            raise ValueError(f"not in {form}: {text!r}")
        value = compute(_VALUES[text] if form == "words" else int(text))
        return number_words(value) if answer == "words" else str(value)

    return run


def _numbers(low: int, high: int, form: str, step: int = 1) -> Source:
    return lambda rng: (
        number_words(rng.randrange(low, high + 1, step)) if form == "words" else str(rng.randrange(low, high + 1, step))
    )


def _plus(amount: int) -> Callable[[int], int]:
    return lambda value: value + amount


def _times(amount: int) -> Callable[[int], int]:
    return lambda value: value * amount


def _unary_rows() -> list[tuple[str, str, int, int, int, Callable[[int], int]]]:
    rows = [(f"plus_{k}", form, 1, 300, 1, _plus(k)) for k in (2, 3, 4, 5, 10, 20, 100) for form in ("digits", "words")]
    rows += [(f"minus_{k}", "digits", k + 1, 300, 1, _plus(-k)) for k in (2, 3, 4, 5, 10, 20, 100)]
    rows += [(f"times_{k}", "digits", 1, high, 1, _times(k)) for k, high in ((4, 100), (5, 100), (10, 300), (100, 200))]
    rows += [("times_10", "words", 1, 99, 1, _times(10)), ("triple", "digits", 1, 150, 1, _times(3))]
    rows += [
        ("half", "digits", 2, 400, 2, lambda value: value // 2),
        ("half", "words", 2, 200, 2, lambda value: value // 2),
    ]
    rows += [
        ("square", "digits", 1, 30, 1, lambda value: value * value),
        ("negate", "digits", 1, 400, 1, lambda value: -value),
    ]
    return rows


def _two(sign: str, low: int, high: int, count: int = 2) -> Source:
    return lambda rng: f" {sign} ".join(str(rng.randint(low, high)) for _ in range(count))


def _combined(sign: str, compute: Callable[[int, int], int], answer: str) -> Callable[[str], str]:
    def run(text: str) -> str:
        total, *rest = (int(part) for part in text.split(f" {sign} "))
        for value in rest:
            total = compute(total, value)
        return number_words(total) if answer == "words" else str(total)

    return run


def _add(left: int, right: int) -> int:
    return left + right


def _binary() -> tuple[BuiltinTask, ...]:
    rows = (
        ("multiply", "x", "digits", _two("x", 1, 12), lambda left, right: left * right),
        ("multiply", "x", "words", _two("x", 1, 12), lambda left, right: left * right),
        ("add_three", "+", "digits", _two("+", 1, 20, 3), _add),
        ("add", "+", "words", _two("+", 1, 50), _add),
    )
    return tuple(
        further(
            FAMILY,
            f"{op}_digits" + ("_to_words" if answer == "words" else ""),
            {"operation": op, "form": "digits", "answer": answer},
            source,
            _combined(sign, compute, answer),
            wording,
        )
        for op, sign, answer, source, compute in rows
    )


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of arithmetic and all of the number properties."""
    unary = (
        further(
            FAMILY,
            f"{op}_{form}",
            {"operation": op, "form": form},
            _numbers(low, high, form, step),
            _unary(compute, form, form),
            wording,
        )
        for op, form, low, high, step, compute in _unary_rows()
    )
    properties = (
        further(PROPERTY_FAMILY, f"number_{name}", {"property": name}, source, answer, property_wording)
        for name, source, answer in _properties()
    )
    return (*unary, *_binary(), *properties)
