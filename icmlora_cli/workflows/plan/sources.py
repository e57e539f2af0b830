"""What a plan is made of: the kind of each recipe, a size of memory, and a folder with a base's configuration."""

import re
from pathlib import Path

from icmlora_cli.config.recipes import KINDS, recipe_path, recipes_folder, shipped_recipes
from icmlora_cli.config.spec_yaml import load_yaml
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import BaseUnavailableError, UsageError
from icmlora_cli.registry.bases import ALIASES, BaseStore, local_folder
from icmlora_cli.workflows.base.sources import HubError, cached_snapshot, hub_snapshot
from icmlora_cli.workflows.progress import OnProgress, silent

CONFIG = "config.json"
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS = _UNITS | {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def read_size(text: str) -> int:
    """Return the bytes of a text such as ``80GB`` or ``24 GiB``.

    Raises:
        UsageError: If it is none.
    """
    found = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-zA-Z]*)\s*", text, re.ASCII)
    size = int(float(found[1]) * UNITS[found[2].lower()]) if found and found[2].lower() in UNITS else 0
    if not size:
        raise UsageError(f"--device-memory {text!r} is no size", hint="--device-memory 80GB, or 24GiB")
    return size


def kind_of(reference: Path) -> str:
    """Return the kind of a recipe, ``harvest`` or ``train``: of a shipped one by its name, of a file by its keys.

    Raises:
        SpecError: If the file is no YAML.
        UsageError: If there is no such recipe, or it is of another kind.
    """
    named = [name for name in shipped_recipes() if name.split("/")[1] == reference.as_posix()]
    if not reference.is_file() and named:  # such as llama-8b, whose kind only its folder tells
        raise UsageError(f"{reference} is not the whole name of a recipe", hint=f"icmlora plan {' '.join(named)}")
    path = recipe_path(reference, "")
    if path.parent.parent == recipes_folder():
        kind = path.parent.name
    else:
        values = load_yaml(path).value
        keys = set(values) if isinstance(values, dict) else set()
        kind = max(KINDS, key=lambda item: len(keys & KINDS[item].model_fields.keys()))
    if kind not in ("harvest", "train"):
        raise UsageError(
            f"a recipe of {kind} has nothing to plan", where=str(path), hint="icmlora plan harvest/default --base BASE"
        )
    return kind


def config_folder(name: str, home: Home, *, offline: bool, on_progress: OnProgress = silent) -> Path:
    """Return a folder with the ``config.json`` of a base; weights are not needed, and none are fetched.

    Args:
        name: An alias, a hub id, or a local folder.
        home: The registry.
        offline: Whether nothing is fetched.
        on_progress: Called during the download.

    Raises:
        BaseUnavailableError: If there is none.
    """
    folder, reason = local_folder(name), ""
    if folder is None and (recorded := BaseStore(home).find(name)) is not None:
        folder = recorded.path
    if folder is None:
        model_id = ALIASES[name].model_id if name in ALIASES else name
        folder = cached_snapshot(model_id, allowed=(CONFIG,))
        if folder is None and not offline:
            try:
                folder = hub_snapshot(model_id, name, on_progress, allowed=(CONFIG,))
            except HubError as error:
                reason = f", and the hub did not hand it out ({error})"
    if folder is None or not (folder / CONFIG).is_file():
        raise BaseUnavailableError(
            f"there is no {CONFIG} of {name} on this machine{reason}",
            where=f"{home.bases}, then the hub's cache" if folder is None else str(folder),
            hint=f"check the name, or give --base a folder that has the model's {CONFIG}",
        )
    return folder
