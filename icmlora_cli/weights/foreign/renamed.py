"""Names that modules had in older releases of transformers, or in a model of which the base is a part.

From 4.52 on, transformers keeps the language model of a vision language model at ``model.language_model``, which was
``language_model.model`` or ``model`` before, and the image's side beside it.
"""

from collections.abc import Mapping

from icmlora_cli.weights.foreign.keys import KeyParts

FORMER = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head", "lm_head"),
    ("model.", "model.language_model."),
    ("vision_tower.", "model.vision_tower."),
    ("vision_model.", "model.vision_model."),
    ("visual.", "model.visual."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    # the language model alone, of an adapter of the whole
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
)


def in_the_base(parts: KeyParts, known: Mapping[str, object]) -> tuple[KeyParts, dict[str, str]]:
    """Return an adapter's parts under the names of the base's modules, and each changed name's former one.

    Args:
        parts: as the file names them.
        known: names of the base's modules and parameters.
    """
    former: dict[str, str] = {}
    modules = {kind: _renamed(names, known, former) for kind, names in parts.modules.items()}
    return KeyParts(modules, _renamed(parts.whole, known, former)), former


def _renamed(names: Mapping[str, str], known: Mapping[str, object], former: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, tensor in names.items():
        new = name if name in known else _at(name, known)
        if new in names and new != name:
            new = name  # both are there: nothing says which one is meant
        if new != name:
            former[new] = name
        found[new] = tensor
    return found


def _at(name: str, known: Mapping[str, object]) -> str:
    candidates = (new + name.removeprefix(old) for old, new in FORMER if name.startswith(old))
    return next((candidate for candidate in candidates if candidate in known), name)
