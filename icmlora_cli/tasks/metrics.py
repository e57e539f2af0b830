"""The names of metrics: those of icmlora itself, and those that installed packages add by entry point."""

from importlib.metadata import entry_points

GROUP = "icmlora.metrics"
ANSWER_METRICS = ("exact_match", "f1", "nll")
DETECTION_METRICS = ("map50_95", "map50", "map75")
TEXT_METRICS = ("bits_per_character", "perplexity")


def installed_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that installed packages add under the entry-point group ``icmlora.metrics``."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def checked_metric(name: str) -> str:
    """Return a metric's name, if there is such a metric.

    Raises:
        ValueError: If there is no such metric; the message names those that there are.
    """
    known = (*ANSWER_METRICS, *DETECTION_METRICS, *TEXT_METRICS, *installed_metrics())
    if name not in known:
        listed = ", ".join(map(repr, known[:-1]))
        raise ValueError(f"should be {listed} or {known[-1]!r}, or be a metric of an installed package, not {name!r}")
    return name
