"""Find recipes and resolve them: every setting of a workflow, in YAML. Precedence: command line > recipe > default."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipe_model import RecipeModel
from icmlora_cli.config.spec_yaml import load_spec
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.errors import SpecError, UsageError

R = TypeVar("R", bound=RecipeModel)
KINDS: dict[str, type[RecipeModel]] = {"harvest": HarvestRecipe, "train": TrainRecipe, "eval": EvalRecipe}


def recipes_folder() -> Path:
    """Return the folder of the recipes that ship with icmlora (in the wheel, or in a source checkout)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the shipped recipes, such as ``harvest/default``."""
    folder = recipes_folder()
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")))


def recipe_path(reference: Path, kind: str) -> Path:
    """Find a recipe by file name, by its shipped name, or by its shipped name within its kind.

    Raises:
        UsageError: If there is no such recipe.
    """
    if reference.is_file():
        return reference
    for name in (reference.as_posix(), f"{kind}/{reference.as_posix()}"):
        if name in shipped_recipes():
            return recipes_folder() / f"{name}.yaml"
    raise UsageError(
        f"there is no recipe {str(reference)!r}",
        where=f"{reference.absolute()}, and the recipes that ship with icmlora",
        hint=f"give a YAML file or one of: {', '.join(shipped_recipes())}",
    )


def resolve(model: type[R], reference: Path | None, kind: str, overrides: Mapping[str, object]) -> R:
    """Return a recipe: the defaults, under the file's values, under the command line's.

    Args:
        model: the class of the recipe.
        reference: a YAML file or the name of a shipped recipe; None takes the defaults.
        kind: the kind of recipe, such as ``train``, among which short names are looked up.
        overrides: values of the command line by the setting's name alone, in whatever group it is; None means unset.

    Raises:
        SpecError: If the file or a value is wrong; the error lists all faults.
        UsageError: If there is no such recipe.
    """
    recipe = model() if reference is None else load_spec(recipe_path(reference, kind), model, moved=model.moved)
    changes = {key: value for key, value in overrides.items() if value is not None}
    if not changes:
        return recipe
    values = recipe.model_dump()
    replaced = dict.fromkeys(other for name in changes for other in model.replaces.get(name, ()))
    for name, value in (replaced | changes).items():
        (values[model.moved[name]] if name in model.moved else values)[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [f"--{_option(item['loc'], model)}: {item['msg']}" for item in error.errors()]
        raise SpecError("a value on the command line is wrong", faults) from error


def _option(location: tuple[int | str, ...], model: type[RecipeModel]) -> str:
    """Return the name of the option whose value is wrong: that of the setting, without its group."""
    setting = location[1:] if len(location) > 1 and location[0] in model.moved.values() else location
    return ".".join(map(str, setting)).replace("_", "-")
