"""Metrics of a written answer beside the expected one: token F1, and those that entry points add.

A metric of one's own is a function ``(written: list[str], expected: list[str]) -> list[float]``, one value an example,
higher is better, registered by an installed package under the entry-point group ``icmlora.metrics``; a task names it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from icmlora_cli.errors import IcmloraError, NotFoundError
from icmlora_cli.tasks.metrics import GROUP, installed_metrics

Metric = Callable[[list[str], list[str]], Sequence[float]]


def token_f1(written: str, expected: str) -> float:
    """Return the F1 of the two texts' words, 0 to 1, case ignored.

    It is SQuAD's (Rajpurkar et al., EMNLP 2016), but punctuation and articles count: they are part of a small task's
    answer.
    """
    one, two = written.casefold().split(), expected.casefold().split()
    common = sum((Counter(one) & Counter(two)).values())
    if not one or not two:
        return float(one == two)
    return 2 * common / (len(one) + len(two))


def load_metric(name: str) -> Metric:
    """Load a metric of an entry point.

    Raises:
        NotFoundError: if no installed package has it.
        IcmloraError: if it cannot be loaded.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                metric: Metric = point.load()
            except Exception as error:
                raise IcmloraError(f"the metric {name!r} cannot be loaded: {error}", where=point.value) from error
            return metric
    known = ", ".join(installed_metrics()) or "none"
    raise NotFoundError(
        f"there is no metric {name!r}",
        where=f"entry points of the group {GROUP} (installed: {known})",
        hint="install the package that has it, or change the task's metric",
    )


def apply_metric(name: str, written: Sequence[str], expected: Sequence[str]) -> tuple[float, ...]:
    """Return a metric's value for each example.

    Raises:
        NotFoundError: if there is no such metric.
        IcmloraError: if it fails, or does not give one finite number an example.
    """
    metric = load_metric(name)
    try:
        values = tuple(float(value) for value in metric(list(written), list(expected)))
    except Exception as error:
        raise IcmloraError(f"the metric {name!r} failed: {type(error).__name__}: {error}") from error
    if len(values) != len(expected) or any(value != value or abs(value) == float("inf") for value in values):
        raise IcmloraError(
            f"the metric {name!r} gave {len(values)} values for {len(expected)} examples, or one not finite"
        )
    return values
