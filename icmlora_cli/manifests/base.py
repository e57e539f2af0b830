"""The ``base.json`` of a base model that is on this machine."""

from typing import Literal

from pydantic import Field

from icmlora_cli.manifests.model import Count, Items, Manifest
from icmlora_cli.manifests.parts import NamedFile


class BaseManifest(Manifest):
    """What ``base.json`` holds; ``registry.bases.Base`` describes each field.

    ``path`` is ``.`` if the weights are in the same folder, so that the cache can be moved.
    """

    name: str
    model_id: str
    revision: str | None
    path: str
    weight_hash: str
    origin: str
    licence: str | None
    bytes: Count
    architecture: str
    files: Items[NamedFile]
    schema_: Literal["icmlora.base/1"] = Field("icmlora.base/1", alias="schema")  # last, as earlier versions wrote it
