"""``generator.json``: a trained generator."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from icmlora_cli.manifests.model import Count, Manifest, Number, Part, Seed, Size, Values
from icmlora_cli.manifests.parts import Cost, Recipe, SourceAdapter, Versions

Index = Annotated[int, Field(ge=0, le=2**20)]


class NetworkSizes(Part):
    """The sizes of a generator's networks; see ``generator.interface.NetworkConfig``."""

    arch: str
    places: tuple[tuple[Index, Index], ...] = Field(min_length=1)
    width: Size
    hidden: Size
    latent_dim: Size
    hidden_dim: Size
    code_dim: Size
    shared_heads: bool = True
    learned_prior: bool = True
    remembered: Count = 0
    reader: str = "mean"
    reader_dim: Size = 128
    reader_layers: Count = 1
    queries: Size = 4
    condition_dim: Size = 128


class LayoutShapes(Part):
    """The modules of the adapters, name, rows and columns of delta-W each; see ``weights.layout.Layout``."""

    modules: tuple[tuple[str, Size, Size], ...] = Field(min_length=1)
    fan_in_fan_out: bool = False


class FrameSeed(Part):
    """What a seeded basis is made from; see ``weights.frame.FrameSpec``."""

    seed: Seed
    width: Size


class GeneratorBase(Part):
    """The base model of a generator: alias, hub id or folder; the hub's commit; its weights' hash; its licence."""

    name: str
    revision: str | None = None
    weight_hash: str
    licence: str | None = None


class GeneratorAbout(Part):
    """What is known of a generator beside its weights.

    Args:
        key: hash of base, tasks, adapters and recipe.
        base: its base model.
        tasks: name and first description of each task that it learned from.
        builtin_tasks: names of the built-in tasks that episodes drew from.
        adapters: of each task with a harvested adapter, the adapter's key.
        sources: how these adapters were made; None where an earlier version did not record it.
        cost: seconds and joules of harvest and training.
        licences: of the tasks.
        unlicensed: how many tasks state none.
        datasets: those of the hub.
        recipe: it was trained by.
        figures: errors on its own tasks, and seconds.
        curve: step and losses; of earlier versions step, reconstruction and KL.
        versions: of the packages.
        command: the command line.
        created: UTC time, ISO 8601.
        card_sha256: of README.md.
    """

    key: str
    base: GeneratorBase
    tasks: Mapping[str, str]
    builtin_tasks: tuple[str, ...] = ()
    adapters: Mapping[str, str] = Field(default_factory=dict)
    sources: tuple[SourceAdapter, ...] | None = None
    cost: Cost | None = None
    licences: tuple[str, ...] = ()
    unlicensed: Count = 0
    datasets: tuple[str, ...] = ()
    recipe: Recipe | None = None
    figures: Values = Field(default_factory=dict)
    curve: tuple[tuple[Count, Mapping[str, Number]] | tuple[Count, Number, Number], ...] = ()
    versions: Versions | None = None
    command: str | None = None
    created: str | None = None
    card_sha256: str | None = None


class GeneratorWeights(Manifest):
    """What ``generator.safetensors`` holds: the keys of ``generator.json`` that loading it needs.

    Args:
        network: sizes of the networks.
        layout: the modules.
        base_model: hub id or folder of the base, for the PEFT configuration.
        rank: of the adapters.
        frame: of a seeded basis; None where the basis is kept.
        sha256: of ``generator.safetensors``.
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
    """What ``generator.json`` holds."""
