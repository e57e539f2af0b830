"""What can still be told of a manifest that is broken elsewhere: for advice, never for use."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator


def _or_nothing(value: object, handler: ValidatorFunctionWrapHandler) -> object:
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
    """The keys of a manifest that advice is made of; None where one is missing or broken."""

    name: Text = None
    key: Text = None
    source: Text = None
    data_hash: Text = None
    command: Text = None
    made: Annotated[_Made | None, WrapValidator(_or_nothing)] = None
    figures: Annotated[_Figures | None, WrapValidator(_or_nothing)] = None

    @property
    def made_by(self) -> str | None:
        """The command that made the thing: a task has it under ``made``."""
        return self.made.command if self.made is not None else self.command

    @property
    def seconds(self) -> float | None:
        """How long making it took."""
        return None if self.figures is None else self.figures.seconds


def read_remains(path: Path) -> Remains:
    """Return what can be told of a manifest; nothing where there is none, or no JSON object."""
    try:
        return Remains.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return Remains()
