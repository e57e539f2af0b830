"""``manifest.json`` of a harvested or imported adapter."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from icmlora_cli.manifests.model import Count, Manifest, Part, Values
from icmlora_cli.manifests.parts import Recipe, Versions

FOLDER = re.compile(r"checkpoint-[0-9]{1,12}")


class AdapterCheckpoint(Part):
    """One kept checkpoint of an adapter.

    Args:
        step: optimizer steps behind it.
        folder: the PEFT folder's name within the adapter's; it becomes part of a path.
        sha256: of its ``adapter_model.safetensors``.
        bytes: of all its files.
        config_sha256: of its ``adapter_config.json``; None where an earlier version did not record it.
    """

    step: Count
    folder: Annotated[str, Field(pattern=rf"^{FOLDER.pattern}$")]
    sha256: str
    bytes: Count
    config_sha256: str | None = None


class ImportedFile(Part):
    """One folder that was imported: its name, and the hashes of its weights and configuration."""

    name: str
    sha256: str | None = None
    config_sha256: str | None = None


class Imported(Part):
    """Where an adapter was imported from.

    Args:
        source: folder, archive or hub id; ``from`` in the file.
        revision: the hub's commit.
        licence: what it states.
        base_model: what it says it is for.
        peft_version: that wrote it.
        files: what was read.
        inexact: the parts that could not be kept exactly.
    """

    source: str = Field(alias="from")
    revision: str | None = None
    licence: str | None = None
    base_model: str | None = None
    peft_version: str | None = None
    files: tuple[ImportedFile, ...] = ()
    inexact: tuple[Mapping[str, JsonValue], ...] = ()

    @classmethod
    def of(cls, source: str, **facts: Any) -> "Imported":
        """Return an import's facts; ``from`` is a word of Python and cannot be given by name."""
        return cls(**(facts | {"from": source}))


class AdapterAbout(Part):
    """How an adapter was made.

    Args:
        model_id: hub id or folder of the base.
        revision: the hub's commit of it.
        base_licence: what the base states.
        licence: of the task's examples; of an import, its own.
        source: where the examples come from.
        recipe: it was harvested by; None of an import.
        versions: of the packages.
        command: the command line.
        device: it was trained on.
        dtype: of the base then.
        imported: where it was imported from; None where icmlora trained it.
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
    """What ``manifest.json`` holds; see ``registry.adapters.AdapterRecord``."""

    HINT: ClassVar[str] = "icmlora registry verify --repair"

    schema_: Literal["icmlora.adapter/1"] = Field("icmlora.adapter/1", alias="schema")
    task: str
    key: str
    base: str
    weight_hash: str
    data_hash: str
    created: str
    checkpoints: tuple[AdapterCheckpoint, ...] = Field(min_length=1)
    figures: Values
    about: AdapterAbout
