"""The ``manifest.json`` of a harvested or imported adapter."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from icmlora_cli.manifests.model import Count, Items, Manifest, Part, Values
from icmlora_cli.manifests.parts import HashedFile, Recipe, Versions

FOLDER = re.compile(r"checkpoint-[0-9]{1,12}")


class AdapterCheckpoint(Part):
    """One kept checkpoint of an adapter.

    Args:
        step: the optimizer steps before it was saved.
        folder: the name of the PEFT folder within the adapter's folder; it becomes part of a path.
        sha256: the hex SHA-256 of its ``adapter_model.safetensors``.
        bytes: the bytes of all its files.
        config_sha256: the hex SHA-256 of its ``adapter_config.json``; None if an earlier version did not record it.
    """

    step: Count
    folder: Annotated[str, Field(pattern=rf"^{FOLDER.pattern}$")]
    sha256: str
    bytes: Count
    config_sha256: str | None = None


class ImportedFile(Part):
    """One imported folder: its name, and the hex SHA-256 of its weights and of its configuration."""

    name: str
    sha256: str | None = None
    config_sha256: str | None = None


class Imported(Part):
    """Where an adapter was imported from.

    Args:
        source: the hub id, or the name of the folder, without the path to it; the key is ``from`` in the file.
        revision: the commit on the hub; None for folders and archives.
        licence: the licence that the adapter states; None if it states none.
        base_model: the base model that the adapter names; None if it names none.
        peft_version: the version of PEFT that wrote it; None if it does not say.
        files: the folders that were read.
        inexact: the parts that could not be kept exactly.
    """

    source: str = Field(alias="from")
    revision: str | None = None
    licence: str | None = None
    base_model: str | None = None
    peft_version: str | None = None
    files: Items[ImportedFile] = ()
    inexact: Items[Mapping[str, JsonValue]] = ()

    @classmethod
    def of(cls, source: str, **facts: Any) -> "Imported":
        """Return an import's facts; Python allows no keyword argument named ``from``.

        Args:
            source: the hub id, or the name of the folder.
            **facts: the other fields by name.
        """
        return cls(**(facts | {"from": source}))


class AdapterAbout(Part):
    """How an adapter was made.

    Args:
        model_id: the hub id of the base model; of a folder, its name and the start of its weights' hash.
        revision: the commit of the base model on the hub; None for other sources.
        base_licence: the licence that the base model states.
        licence: the licence of the task's examples; for an imported adapter, its own licence.
        source: where the examples come from.
        recipe: the recipe of the harvest; None for an imported adapter.
        versions: the versions of the packages that trained or imported it.
        command: the command line.
        device: the device that it was trained on.
        dtype: the number format of the base model in training.
        imported: where it was imported from; None if icmlora trained it.
    """

    model_id: str | None = None
    revision: str | None = None
    base_licence: str | None = None
    licence: str | None = None
    source: str | None = None
    recipe: Recipe | None = None
    versions: Versions | None = None
    command: str | None = None
    device: str | None = None
    dtype: str | None = None
    imported: Imported | None = None


class AdapterManifest(Manifest):
    """What ``manifest.json`` holds; ``registry.adapters.AdapterRecord`` describes each field."""

    HINT: ClassVar[str] = "icmlora registry verify --repair"

    schema_: Literal["icmlora.adapter/1"] = Field("icmlora.adapter/1", alias="schema")
    task: str
    key: str
    base: str
    weight_hash: str
    data_hash: str
    created: str
    checkpoints: Items[AdapterCheckpoint] = Field(min_length=1)
    figures: Values
    about: AdapterAbout
    sensitivity: HashedFile | None = None
