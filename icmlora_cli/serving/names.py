"""The form of the names that clients may ask for; this module needs no torch, so that vLLM loads it quickly."""

from icmlora_cli.disk.home import NAME

PREFIX = "icm:"  # what stands before a task text that is used as a model's name


def may_be_ours(name: str) -> bool:
    """Tell whether a name has the form of a task text, ``icm:TASK TEXT``, or of a registered task's name."""
    return name.startswith(PREFIX) or NAME.fullmatch(name) is not None
