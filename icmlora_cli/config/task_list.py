"""Lists of task names as YAML files, which stand in a command for the names that they hold."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from icmlora_cli.config.recipe_model import RecipeModel
from icmlora_cli.config.recipes import recipe_path, shipped_recipes
from icmlora_cli.config.spec_yaml import load_spec
from icmlora_cli.errors import UsageError

KIND = "lists"  # the folder of the lists that ship with icmlora
SIGN = "@"  # before the name of a list; no task's name has one


class TaskList(RecipeModel):
    """The file of a list.

    Args:
        tasks: names of tasks, or patterns of names, as ``--tasks`` takes them; a list within a list is refused.
    """

    tasks: Annotated[tuple[Annotated[str, Field(pattern=r"^[^@\s]+$")], ...], Field(min_length=1)]


def read_task_list(reference: Path) -> tuple[str, ...]:
    """Return the names of a list.

    Args:
        reference: a YAML file, or the name of a list that ships with icmlora, with or without ``lists/``.

    Raises:
        SpecError: If the file has faults; the error lists all of them.
        UsageError: If there is no such list.
    """
    try:
        path = recipe_path(reference, KIND)
    except UsageError as error:
        shipped = [name.partition("/") for name in shipped_recipes()]
        known = ", ".join(f"{SIGN}{name}" for kind, _, name in shipped if kind == KIND)
        raise UsageError(
            f"there is no list of tasks {str(reference)!r}",
            where=error.where,
            hint=f"give a YAML file or one of: {known}",
        ) from error
    return load_spec(path, TaskList).tasks


def without_lists(patterns: Sequence[str]) -> Iterator[str]:
    """Yield names and patterns, and in place of each ``@LIST`` the names that it holds.

    Raises:
        SpecError: If a list has faults.
        UsageError: If there is no such list.
    """
    for pattern in patterns:
        if pattern.startswith(SIGN):
            yield from read_task_list(Path(pattern.removeprefix(SIGN)))
        else:
            yield pattern
