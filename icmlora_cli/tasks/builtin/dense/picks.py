"""More places of longer and shorter lists, under other separators too."""

from icmlora_cli.tasks.builtin.dense.build import Axes, further, items_of, lists, several
from icmlora_cli.tasks.builtin.grammar import Wording
from icmlora_cli.tasks.builtin.types import BuiltinTask

FAMILY = "pick_from_list"

SEPARATORS: dict[str, tuple[str, str]] = {
    "comma": (", ", "commas"),
    "semicolon": ("; ", "semicolons"),
    "space": (" ", "spaces"),
    "and": (" and ", 'the word "and"'),
    "slash": ("/", "slashes"),
    "pipe": (" | ", "vertical bars"),
}
_FROM_START = ("first", "second", "third", "fourth", "fifth", "sixth")
_SHORT = ("1st", "2nd", "3rd", "4th", "5th", "6th")
_FROM_END = ("last", "second_to_last", "third_to_last")
_ORDINALS = {
    **{name: f"{name}|{name}|{name}|{place}" for name, place in zip(_FROM_START, _SHORT, strict=True)},
    "first": "first|first|first|1st|initial|very first",
    "last": "last|last|last|final|very last",
    "middle": "middle|middle|middle|central",
    "second_to_last": "second-to-last|second-to-last|second to last|next-to-last|penultimate|second-last",
    "third_to_last": "third-to-last|third-to-last|third to last|third-last",
}
_WHERE = {
    "first": "[at|that stands at] the [start|beginning|front][ of the list|]|that comes first|[at|in] the first"
    " position",
    "last": "[at|that stands at] the [very |]end[ of the list|]|that comes last|[at|in] the last position",
    "middle": "in the [exact |]middle[ of the list|]|[at|in] the middle position",
    "second_to_last": "[right|just] before the last one|in the next-to-last [place|position]|second from the end",
    "third_to_last": "third from the end|in third place from the end|two places before the last one",
}
_COMES = {
    "first": "comes first|is at the [start|beginning]|is the first",
    "last": "comes last|is at the [very |]end|is the last",
    "middle": "is in the middle|stands in the middle",
    "second_to_last": "comes just before the last one|is second from the end",
    "third_to_last": "is third from the end",
}
_ELSEWHERE = ((3, "first last second"), (4, "second third second_to_last"), (5, "first last third fourth"))
_HELD_OUT = {(0, 4), (3, 4), (1, 5)}
_COUNTS = {
    "first": (2, 6, 7),
    "last": (2, 6, 7),
    "middle": (7,),
    "second": (3, 6, 7),
    "third": (3, 6, 7),
    "fourth": (5, 6, 7),
    "fifth": (5, 6, 7),
    "sixth": (6, 7),
    "second_to_last": (3, 4, 5, 6, 7),
    "third_to_last": (3, 4, 5, 6, 7),
}


def place_of(item: str, count: int) -> int:
    """Return the index of a named place in a list of ``count`` items."""
    if item == "middle":
        return count // 2
    return _FROM_START.index(item) if item in _FROM_START else count - 1 - _FROM_END.index(item)


def wording(axes: Axes) -> Wording:
    """Return the phrases of a task of this family."""
    item, sep = axes["item"], axes.get("separator", "comma")
    n, between = several(axes["count"]), SEPARATORS[sep][1]
    shape = "comma-separated list" if sep == "comma" else "list"
    apart = f"[separated by {between}|with {between} between them]"
    told = apart if sep != "comma" else f"[{apart}||]"
    noun = "[item|word|word|element|entry]"
    nouns = "[words|words|items|elements|entries]"
    order = f"[{_ORDINALS[item]}]"
    where = f"[{_WHERE.get(item, f'[at|in] the {item} [place|position]|that comes {item}')}]"
    comes = f"[{_COMES.get(item, f'comes {item}|is in {item} place')}]"
    of_list = f"[ of the list| in the list| from the list| of the {n} {nouns}| of the {n}|]"
    return Wording(
        input=f"a {shape} of {n} {nouns} {told}|{n} {nouns} {apart}|a list with {n} {nouns} {told}",
        do=f"{{pick}} the {order} {noun}{of_list}|{{pick}} the {order} {noun}{of_list}|{{pick}} the {noun} {where}"
        f"|{{pick}} the {order} of the {n} {nouns}[ {apart}|]|from the list of {n} {nouns}, {{pick}} the {order} one",
        result=f"the {order} {noun}{of_list}|the {noun} {where}|the {order} of {n} {nouns}[ {apart}|]",
        ask=f"which [of the {n} {nouns}|{noun}|{noun} of the list] {comes}|what is the {order} {noun}{of_list}",
    )


def _task(item: str, count: int, separator: str) -> BuiltinTask:
    sep, place = SEPARATORS[separator][0], place_of(item, count)
    ending = "" if separator == "comma" else f"_{separator}"
    axes = {"item": item, "count": str(count), "separator": separator}
    name = f"pick_{item}_of_{count}{ending}"
    return further(FAMILY, name, axes, lists(count, sep), lambda text: items_of(text, sep, count)[place], wording)


def dense() -> tuple[BuiltinTask, ...]:
    """Return the further tasks of this family; no place and count of a held-out one is among them."""
    rows = [(item, count, "comma") for item, counts in _COUNTS.items() for count in counts]
    for separator in SEPARATORS:
        if separator != "comma":
            rows += [(item, count, separator) for count, items in _ELSEWHERE for item in items.split()]
    return tuple(_task(*row) for row in rows if (place_of(row[0], row[1]), row[1]) not in _HELD_OUT)
