"""What can still be read of a broken manifest, to advise the user; nothing else may be based on it."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator


def _or_nothing(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """Return the valid value, or None in place of a broken one."""
    try:
        return handler(value)
    except ValidationError:
        return None


Text = Annotated[str | None, WrapValidator(_or_nothing)]


class _Made(BaseModel):
    command: Text = None


class _Figures(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    seconds: Annotated[float | None, WrapValidator(_or_nothing)] = None


class Remains(BaseModel):
    """The keys of a manifest from which advice is made; each is None if it is missing or broken."""

    name: Text = None
    key: Text = None
    source: Text = None
    data_hash: Text = None
    command: Text = None
    made: Annotated[_Made | None, WrapValidator(_or_nothing)] = None
    figures: Annotated[_Figures | None, WrapValidator(_or_nothing)] = None

    @property
    def made_by(self) -> str | None:
        """The command that made the thing; a task's manifest has it under ``made``."""
        return self.made.command if self.made is not None else self.command

    @property
    def seconds(self) -> float | None:
        """The seconds that it took to make the thing."""
        return None if self.figures is None else self.figures.seconds


def read_remains(path: Path) -> Remains:
    """Return what can be read of a manifest; every key is None if there is no file, or no JSON object in it."""
    try:
        return Remains.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return Remains()
