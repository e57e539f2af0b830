"""The ``generator.json`` of a trained generator."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from icmlora_cli.manifests.model import Count, Items, Manifest, Number, Part, Seed, Size, Values
from icmlora_cli.manifests.parts import Cost, Recipe, SourceAdapter, Versions

Index = Annotated[int, Field(ge=0, le=2**20)]


class NetworkSizes(Part):
    """The sizes of a generator's networks; ``generator.interface.NetworkConfig`` describes each field."""

    arch: str
    places: Items[tuple[Index, Index]] = Field(min_length=1)
    width: Size
    hidden: Size
    latent_dim: Size
    hidden_dim: Size
    code_dim: Size
    shared_heads: bool = True
    code_norm: bool = False
    output_scale: bool = False
    mean_adapter: bool = False
    bounded: Number | None = None
    learned_prior: bool = True
    remembered: Count = 0
    reader: str = "mean"
    reader_dim: Size = 128
    reader_layers: Count = 1
    queries: Size = 4
    condition_dim: Size = 128
    batch_norm: bool = False


class LayoutShapes(Part):
    """The name, rows and columns of delta-W of each module of the adapters; see ``weights.layout.Layout``."""

    modules: Items[tuple[str, Size, Size]] = Field(min_length=1)
    fan_in_fan_out: bool = False


class FrameSeed(Part):
    """The seed and the width from which a frame is computed; see ``weights.frame.FrameSpec``."""

    seed: Seed
    width: Size


class GeneratorBase(Part):
    """The base model of a generator.

    Args:
        name: the alias or hub id; of a folder, its name and the start of ``weight_hash``.
        revision: the commit on the hub; None for other sources.
        weight_hash: the hash of its weights; ``registry.bases.Base`` says how it is computed.
        licence: the licence that it states; None if it states none.
    """

    name: str
    revision: str | None = None
    weight_hash: str
    licence: str | None = None


class GeneratorAbout(Part):
    """What is known of a generator beside its weights.

    Args:
        key: the hash of base, tasks, adapters and recipe.
        base: its base model.
        tasks: the name and the first description of each task that it learned from.
        builtin_tasks: the names of the built-in tasks that episodes drew from.
        adapters: the key of the adapter of each task that has a harvested one, by the task's name.
        sources: how these adapters were made; None if an earlier version did not record it.
        cost: the seconds and joules of harvest and training.
        licences: the licences of the tasks.
        unlicensed: how many tasks state no licence.
        datasets: the hub's datasets that the tasks come from.
        recipe: the recipe of the training.
        figures: the errors on its training tasks, and the seconds of the training.
        curve: the step and the losses of each point; earlier versions wrote step, reconstruction and KL.
        versions: the versions of the packages.
        command: the command line.
        created: the UTC time, ISO 8601.
        card_sha256: the hex SHA-256 of ``README.md``.
    """

    key: str
    base: GeneratorBase
    tasks: Mapping[str, str]
    builtin_tasks: Items[str] = ()
    adapters: Mapping[str, str] = Field(default_factory=dict)
    sources: Items[SourceAdapter] | None = None
    cost: Cost | None = None
    licences: Items[str] = ()
    unlicensed: Count = 0
    datasets: Items[str] = ()
    recipe: Recipe | None = None
    figures: Values = Field(default_factory=dict)
    curve: Items[tuple[Count, Mapping[str, Number]] | tuple[Count, Number, Number]] = ()
    versions: Versions | None = None
    command: str | None = None
    created: str | None = None
    card_sha256: str | None = None


class GeneratorWeights(Manifest):
    """The keys of ``generator.json`` that are needed to load ``generator.safetensors``.

    Args:
        network: the sizes of the networks.
        layout: the modules of the adapters.
        base_model: the name of the base model for the PEFT configuration: its hub id, or as ``base.name``.
        rank: the rank of the generated adapters.
        frame: what the frame is computed from; None if the basis was learned, and is in the file.
        sha256: the hex SHA-256 of ``generator.safetensors``.
    """

    HINT: ClassVar[str] = "icmlora registry verify --repair && icmlora train"

    schema_: Literal["icmlora.generator/1"] = Field("icmlora.generator/1", alias="schema")
    network: NetworkSizes
    layout: LayoutShapes
    base_model: str
    rank: Size
    frame: FrameSeed | None = None
    sha256: str


class GeneratorManifest(GeneratorAbout, GeneratorWeights):
    """The whole ``generator.json``."""
