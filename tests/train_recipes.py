"""Train recipes of settings by their names alone, whatever the groups that they are in."""

from icmlora_cli.config.train import TrainRecipe, nested


def train_recipe(**settings: object) -> TrainRecipe:
    """Return a train recipe with these settings."""
    return TrainRecipe.model_validate(nested(settings))


def varied(recipe: TrainRecipe, **settings: object) -> TrainRecipe:
    """Return a recipe with some settings changed; like ``model_copy``, no value is checked."""
    changed = recipe
    for name, value in settings.items():
        group = TrainRecipe.moved.get(name)
        update = {name: value} if group is None else {group: getattr(changed, group).model_copy(update={name: value})}
        changed = changed.model_copy(update=update)
    return changed
