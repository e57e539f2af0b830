"""Objects that stand in several manifests: files with their hashes, base models, what adapters were made from."""

from collections.abc import Mapping

from pydantic import JsonValue

from icmlora_cli.manifests.model import Count, Number, Part

Recipe = Mapping[str, JsonValue]  # as a version wrote it; config.recipes reads the ones of this version
Versions = Mapping[str, str]
Cost = Mapping[str, Number]


class HashedFile(Part):
    """Bytes and hex SHA-256 of a file beside the manifest."""

    bytes: Count
    sha256: str


class NamedFile(Part):
    """A file of a base model: its name in the folder, its bytes, its hex SHA-256."""

    name: str
    bytes: Count
    sha256: str


class BaseReference(Part):
    """Which base model a written adapter or model is of.

    Args:
        model_id: its hub id or folder.
        revision: the hub's commit.
        weight_hash: of its weights, see ``registry.bases.Base``.
        licence: what it states.
    """

    model_id: str | None = None
    revision: str | None = None
    weight_hash: str | None = None
    licence: str | None = None


class GeneratorReference(Part):
    """Which generator made an adapter: its name, its key, and the SHA-256 of its weights."""

    name: str | None = None
    key: str | None = None
    sha256: str | None = None


class SourceAdapter(Part):
    """An adapter that a generator learned from, and how it was made.

    Args:
        task: its task's name.
        key: its key.
        data_hash: the task's.
        created: UTC time, ISO 8601.
        licence: of its data.
        source: where those came from.
        device: it was trained on.
        dtype: of the base then.
        recipe: it was harvested by; None of an import.
        versions: of the packages.
        seconds: that it took.
        joules: the same, where the system told them.
        imported: where it was imported from.
    """

    task: str
    key: str
    data_hash: str | None = None
    created: str | None = None
    licence: str | None = None
    source: str | None = None
    device: str | None = None
    dtype: str | None = None
    recipe: Recipe | None = None
    versions: Versions | None = None
    seconds: Number | None = None
    joules: Number | None = None
    imported: str | None = None
