"""Commands whose ``--help`` shows its texts in rich's panels as they are written.

Typer takes help texts for rich's markup: ``icmlora[serve]`` would lose its bracket, ``:family:`` could become an emoji,
and the lines of a docstring would end where they end in the source.
"""

import inspect
import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

ARGUMENT_OF_EMOJI = re.compile(r"(?<=:)(?=\S+:)")  # the place after a colon that another colon follows, as in :smile:


class HelpCommand(TyperCommand):
    """A command whose help texts are shown as they are written, without markup."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the command as Typer does, then escape its texts."""
        super().__init__(*args, **kwargs)
        _show_as_written(self)


class HelpGroup(TyperGroup):
    """A group of commands whose help texts are shown as they are written, without markup."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the command as Typer does, then escape its texts."""
        super().__init__(*args, **kwargs)
        _show_as_written(self)


def escaped(text: str) -> str:
    """Return rich markup that shows a text as it is; rich itself is not imported, since that takes time.

    An empty style between two colons keeps rich from taking what stands between them for the name of an emoji.
    """
    return ARGUMENT_OF_EMOJI.sub("[none][/none]", text.replace("[", r"\["))


def _show_as_written(command: TyperCommand | TyperGroup) -> None:
    if command.help:
        paragraphs = inspect.cleandoc(command.help).split("\n\n")
        command.help = escaped("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))
    if command.epilog:
        command.epilog = escaped(command.epilog)
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        if text:
            parameter.help = escaped(text)  # type: ignore[attr-defined]
