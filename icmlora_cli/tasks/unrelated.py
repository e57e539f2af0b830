"""Twelve short passages that belong to no task: prose, dialogue, a recipe, facts, code, a poem and the like.

An adapter should do its task and leave the rest of the model alone; how well the model still predicts these passages
tells whether it does. They were written for this project, and lie in ``unrelated.txt``, separated by lines of ``%%``.
"""

from importlib.resources import files


def unrelated_passages() -> tuple[str, ...]:
    """Return the passages, always the same ones in the same order."""
    text = files(__package__).joinpath("unrelated.txt").read_text(encoding="utf-8")
    return tuple(text.removesuffix("\n").split("\n%%\n"))
