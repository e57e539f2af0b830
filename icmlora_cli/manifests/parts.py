"""Objects that several manifests hold: files with their hashes, references to base models and generators."""

from collections.abc import Mapping

from pydantic import JsonValue

from icmlora_cli.manifests.model import Count, Number, Part

Recipe = Mapping[str, JsonValue]  # as any version wrote it; config.recipes reads those of this version
Versions = Mapping[str, str]
Cost = Mapping[str, Number]


class HashedFile(Part):
    """The bytes and the hex SHA-256 of a file beside the manifest."""

    bytes: Count
    sha256: str


class NamedFile(Part):
    """A file of a base model: its name in the folder, its bytes, and its hex SHA-256."""

    name: str
    bytes: Count
    sha256: str


class BaseReference(Part):
    """The base model of an adapter or model that was written.

    Args:
        model_id: the hub id of the base model; of a folder, its name and the start of ``weight_hash``.
        revision: its commit on the hub; None for other sources.
        weight_hash: the hash of its weights; ``registry.bases.Base`` says how it is computed.
        licence: the licence that it states; None if it states none.
    """

    model_id: str | None = None
    revision: str | None = None
    weight_hash: str | None = None
    licence: str | None = None


class GeneratorReference(Part):
    """The generator that made an adapter: its name, its key, and the hex SHA-256 of its weights."""

    name: str | None = None
    key: str | None = None
    sha256: str | None = None


class SourceAdapter(Part):
    """An adapter that a generator learned from, and how it was made.

    Args:
        task: the name of its task.
        key: the adapter's key.
        data_hash: the hash of the task's data that it was trained on.
        created: the UTC time when it was finished, ISO 8601.
        licence: the licence of the task's data.
        source: where the task's data come from.
        device: the device that it was trained on.
        dtype: the number format of the base model in training.
        recipe: the recipe of the harvest; None for an imported adapter.
        versions: the versions of the packages.
        seconds: the seconds that its training took.
        joules: the joules that its training took; None if the system does not count them.
        imported: where it was imported from; None if icmlora trained it.
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
