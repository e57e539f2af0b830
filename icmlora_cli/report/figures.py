"""How figures are written for people: labels and units of metrics, numbers, intervals, shares and sizes."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from icmlora_cli.report.result import HIGHER_IS_BETTER, Figure, Part, Result

LABELS = {
    "exact_match": ("exact match", "share of answers, 0 to 1"),
    "f1": ("F1", "of words, 0 to 1"),
    "map50_95": ("mAP", "of boxes, over IoU 0.5 to 0.95, 0 to 1"),
    "map50": ("mAP 50", "of boxes, at IoU 0.5, 0 to 1"),
    "map75": ("mAP 75", "of boxes, at IoU 0.75, 0 to 1"),
    "nll": ("NLL", "nats per answer token"),
    "perplexity": ("perplexity", "per token"),
    "bits_per_character": ("bits per character", ""),
}
PART_TITLES: dict[Part, str] = {
    "seen": "seen tasks",
    "unseen combination": "unseen combinations of known families",
    "unseen family": "tasks of unseen families",
    "unseen": "unseen tasks",
}
USES = {
    "nothing": "knows nothing of the task",
    "text": "reads the task's description",
    "examples": "sees a few examples (k shots)",
    "text and examples": "reads the description and sees a few examples",
    "training data": "was trained on the task's training data",
}
ABSENT = "–"


@dataclass(frozen=True)
class Metric:
    """A metric with what people need in order to read its values.

    Args:
        name: the metric's name in the result.
        label: the metric's name for people.
        unit: the unit of its values; empty if it is not known.
        higher: whether larger values are better.
    """

    name: str
    label: str
    unit: str
    higher: bool

    @property
    def direction(self) -> str:
        """In words, whether larger values are better: ``higher is better`` or ``lower is better``."""
        return "higher is better" if self.higher else "lower is better"

    @property
    def title(self) -> str:
        """The label with the unit in parentheses."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """The title with a capital at its start."""
        return self.title[:1].upper() + self.title[1:]


def metric(name: str) -> Metric:
    """Return the metric of a name; of metrics that entry points add, higher values are taken to be better."""
    label, unit = LABELS.get(name, (name.replace("_", " "), ""))
    return Metric(name, label, unit, HIGHER_IS_BETTER.get(name, True))


def metrics_of(result: Result) -> tuple[Metric, ...]:
    """Return the metrics of a result's figures; first those that are the main metric of the most tasks."""
    task_counts = Counter(task.metric for task in result.tasks)
    names = dict.fromkeys(name for score in result.scores for name in score.figures)
    names |= dict.fromkeys(mean.metric for mean in result.means)
    usual_order = [*HIGHER_IS_BETTER, *names]
    order = sorted(names, key=lambda name: (-task_counts[name], usual_order.index(name)))
    return tuple(metric(name) for name in order)


def parts_of(result: Result) -> tuple[Part, ...]:
    """Return the parts of which a result has tasks, in the order of the report."""
    parts = {task.part for task in result.tasks}
    return tuple(part for part in PART_TITLES if part in parts)


def number(value: float | None) -> str:
    """Return a number with two decimals below 10 and fewer above, and with separated thousands; a dash for None."""
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return _minus(f"{value:,.{digits}f}")


def _minus(text: str) -> str:
    """Return a number's text with a typographic minus, and without one before zero."""
    return text.replace("-", "−" if any(char in "123456789" for char in text) else "")


def signed(value: float) -> str:
    """Return a difference with its sign."""
    text = number(value)
    return f"+{text}" if value > 0 and any(char in "123456789∞" for char in text) else text


def interval(figure: Figure) -> str:
    """Return a figure's interval as ``low to high``."""
    return f"{number(figure.low)} to {number(figure.high)}"


def share(value: float) -> str:
    """Return a share, 0 to 1, in per cent; a dash if it is not finite."""
    return _minus(f"{100 * value:.0f}\u00a0%") if math.isfinite(value) else ABSENT


def share_interval(figure: Figure) -> str:
    """Return a share's interval in per cent, as ``low to high``."""
    return f"{share(figure.low)} to {share(figure.high)}"


def probability(p: float) -> str:
    """Return a p-value with three decimals, or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def size(count: int) -> str:
    """Return a number of bytes in GB, MB, kB or bytes, whichever suits it."""
    for unit, each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= each:
            return f"{count / each:.2f} {unit}"
    return f"{count} bytes"


def joined(items: Sequence[str]) -> str:
    """Return texts as a list in words: ``a``, ``a and b``, or ``a, b and c``."""
    return " and ".join([*([", ".join(items[:-1])] if items[:-1] else []), *items[-1:]])


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun, in the plural (``many``, or ``one`` with an s) unless the count is 1."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
