"""A small grammar of task descriptions: nested alternatives, fields, and the sentences that every family shares."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

_FIELD = re.compile(r"\{(\w+)\}")
_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa])/an (?=[\"']?(\w+))")
_SENTENCE_START = re.compile(r"(?<=[.?] )[a-z]")
_AN_BEFORE = re.compile(r"(?!one\b|once\b|uni|use|eu)([aeiou]|8|11\b|18\b|hour|honest)", re.IGNORECASE)

MACROS: dict[str, str] = {
    "give": "output|output|return|return|give|write|print|answer with|reply with|respond with|produce|say",
    "answer": "answer|reply|respond",
    "pick": "pick|choose|select|output|return|give|write|find|copy|answer with|take",
    "rewrite": "rewrite|write|output|return|repeat|give back",
}


@dataclass(frozen=True)
class Wording:
    """The phrases of one task, each a template with alternatives.

    ``input`` is what the task reads (a list of words), ``do`` an order that stands alone (pick the last word),
    ``result`` the thing to output (the last word), ``ask`` a question without its mark (which word comes last).
    An empty ``result`` or ``ask`` leaves out the sentences made of it.
    """

    input: str
    do: str
    result: str = ""
    ask: str = ""


_ORDERS = (
    *("{do}", "{do}", "{do}", "{do}"),
    "given {input}, {do}",
    "[take|read|look at] {input} and {do}",
    "[take|read] {input}[, then|;] {do}",
)
_ORDERS_OF_RESULT = (
    *("{give} {result}", "{give} {result}"),
    "given {input}, {give} {result}",
    "[read|look at|take] {input} and {answer} with {result}",
    "for {input}, {give} {result}",
)
_STATEMENTS = (
    "you [get|are given|receive|will see] {input}[.|;|:] {do}",
    "the input is {input}[.|;] {do}",
    "[each|every] input is {input}[.|;] {do}",
)
_STATEMENTS_OF_RESULT = (
    "the input is {input}[.|;|, and] the [output|answer] [is|should be|must be] {result}",
    "input: {input}[.|;] output: {result}",
    "I [give|will give|show] you {input}[;|,] [and |]you {give} {result}",
    "the [answer|output|reply] [is|should be|must be] {result}",
    "you {give} {result}",
)
_TERSE = ("{result}", "{input} -> {result}", "{result} ({input})")
_QUESTIONS = (
    *("{ask}?", "{ask}?", "{ask}?"),
    "given {input}, {ask}?",
    "[here is|you see|you get] {input}. {ask}?",
    "[question|answer this]: {ask}?",
)
_LABELS = ("your task: ", "task: ", "instruction: ", "instructions: ", "your job: ", "to do: ")
_OPENINGS = (
    *("please ", "please ", "your task is to ", "your job is to ", "you should ", "you must ", "you have to "),
    *("I want you to ", "I need you to ", "the task is to ", "I would like you to "),
    *_LABELS,
)
_NO_VERB = ("given ", "for ", "from ", "out of ")
_CLOSINGS = (
    *(" and nothing else", " and nothing more", ". [Write|Give|Output] [only|just] the [answer|result]"),
    *(". Answer with [that|the result] only", ". No explanation", ". [Only|Just] the [answer|result], please"),
    *(", without [any |]explanation", ". [Reply|Respond] with the [answer|result] [only|alone]"),
)


def render(template: str, fields: Mapping[str, str], rng: random.Random) -> str:
    """Expand a template: fill its fields, choose among its alternatives, mend articles and spaces.

    Args:
        template: Text with ``{field}`` and nested ``[one|another]``; ``a/an`` becomes the article that fits.
        fields: The template of each field; ``MACROS`` are known too.
        rng: Makes the choices.

    Returns:
        The text.
    """
    text = f"[{template}]"
    while _FIELD.search(text):
        text = _FIELD.sub(lambda found: f"[{fields.get(found[1]) or MACROS[found[1]]}]", text)
    while _INNERMOST.search(text):
        text = _INNERMOST.sub(lambda found: rng.choice(found[1].split("|")), text)
    text = _ARTICLE.sub(lambda found: f"{found[1]}{'n' if _AN_BEFORE.match(found[2]) else ''} ", text)
    text = re.sub(r" +([,.;:?])", r"\1", re.sub(r" +", " ", text)).strip()
    return re.sub(r",(?=[.;:?]|$| \()", "", text)


def _capital(text: str) -> str:
    return _SENTENCE_START.sub(lambda found: found[0].upper(), text[0].upper() + text[1:])


def _frames(wording: Wording) -> tuple[tuple[str, tuple[str, ...]], ...]:
    orders, statements = ("order", _ORDERS), ("statement", _STATEMENTS)
    kinds = [orders, orders, statements]
    if wording.result:
        kinds += [("order", _ORDERS_OF_RESULT), ("statement", _STATEMENTS_OF_RESULT), ("terse", _TERSE)]
    if wording.ask:
        kinds.append(("question", _QUESTIONS))
    return tuple(kinds)


def compose(wording: Wording, rng: random.Random) -> str:
    """Compose one description, with the surface noise of people who type.

    Args:
        wording: The phrases of the task.
        rng: Makes the choices.

    Returns:
        A sentence or two, or a terse note.
    """
    kind, frames = rng.choice(_frames(wording))
    text = rng.choice(frames)
    if kind in ("order", "statement") and rng.random() < 0.25:
        text += rng.choice(_CLOSINGS)
    text = render(text, vars(wording), rng)
    if kind == "order" and rng.random() < 0.3:
        text = rng.choice(_LABELS if text.startswith(_NO_VERB) else _OPENINGS) + text
    if rng.random() < 0.8:
        text = _capital(text)
    return text if text.endswith("?") or rng.random() < 0.25 else f"{text}."


def fixed_descriptions(name: str, wording: Wording, n: int = 4) -> tuple[str, ...]:
    """Compose the few descriptions that a task carries, the same ones in every process.

    Args:
        name: The name of the task; it seeds the choices.
        wording: The phrases of the task.
        n: How many to return.

    Returns:
        Different full sentences; the first says the input and the order.
    """
    rng = random.Random(f"icmlora descriptions {name}")
    frames = ("given {input}, {do}", *_ORDERS, *(_ORDERS_OF_RESULT if wording.result else ()), *_STATEMENTS)
    found: dict[str, None] = {}
    while len(found) < n:
        template = rng.choice(frames) if found else frames[0]
        found[f"{_capital(render(template, vars(wording), rng))}."] = None
    return tuple(found)
