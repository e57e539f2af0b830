"""What all recipes share: the kinds of numbers that settings are, and how a recipe is checked."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1e37)]
"""A learning rate; Adam's first step is ten times as large, and beyond what fp32 holds torch refuses it."""
Decay = Annotated[float, Field(ge=0, le=10)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class RecipeModel(BaseModel):
    """The base class of all recipes: they are frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    moved: ClassVar[Mapping[str, str]] = {}
    """The settings that older versions had at the top of the recipe, each with the group that it is in now."""
    replaces: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The settings that are unset where the command line gives the one of this name, since they say the same thing."""
