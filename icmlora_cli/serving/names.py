"""The form of the names that a server's client may ask for; no torch here."""

from icmlora_cli.disk.home import NAME

PREFIX = "icm:"  # of a task in words


def may_be_ours(name: str) -> bool:
    """Tell whether a name has the form of a task in words or of a registered task."""
    return name.startswith(PREFIX) or NAME.fullmatch(name) is not None
