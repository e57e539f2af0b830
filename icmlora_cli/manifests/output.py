"""The ``icmlora.json`` beside an adapter or model outside of the registry, which says how it was made."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, JsonValue, ValidationError

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.adapter import AdapterManifest
from icmlora_cli.manifests.model import Count, Items, Manifest, Number, Part, Seed, Values, broken
from icmlora_cli.manifests.parts import (
    BaseReference,
    Cost,
    GeneratorReference,
    HashedFile,
    Recipe,
    SourceAdapter,
    Versions,
)
from icmlora_cli.provenance import local_paths

ABOUT = "icmlora.json"
Files = Mapping[str, HashedFile]
TEXTS = ("task_text", "tasks", "description", "descriptions")  # users' texts may name any path


class _Output(Manifest):
    """What all kinds of output share; they have no checksum of their own, since ``push`` shortens paths in them."""

    CHECKSUMMED: ClassVar[bool] = False
    HINT: ClassVar[str] = "make the folder again: the command is in icmlora.json, or in README.md"

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all, without the paths that manifests of earlier versions may bring in.

        Raises:
            OutOfSpaceError: If the disk is full.
        """
        files.write_json(path, local_paths.clean_object(self.content(), TEXTS))


class Generated(_Output):
    """What ``gen`` writes beside an adapter or merged model.

    Args:
        task_text: the task text that was given.
        merged: whether it is a whole model with the adapter merged into it.
        seed: the seed of z, the latent sample; None takes the prior's mean.
        generator: the generator that made it.
        base: the base model that it is for.
        tasks: the name and the first description of each task that the generator learned from.
        licences: the licences of these tasks.
        unlicensed: how many of these tasks state no licence.
        datasets: the hub's datasets that these tasks come from.
        no_derivatives: the licences that forbid derivatives.
        sources: how the adapters that the generator learned from were made.
        cost: the seconds and joules that the generator took.
        versions: the versions of the packages.
        command: the command line.
        options: the other options that were given; None if there were only a text and a seed.
        error: the relative error of delta-W that the lower rank and number format cause.
        selection: how the samples and the base model scored on the examples.
        evidence: what was tried on the examples that were given, and what was kept; None where nothing was tried.
        explanation: what the adapter is near to; None if it was not asked for.
        files: the bytes and the SHA-256 of each file by its name, without the card.
    """

    schema_: Literal["icmlora.generated/1"] = Field("icmlora.generated/1", alias="schema")
    task_text: str
    merged: bool
    seed: Seed | None
    generator: GeneratorReference
    base: BaseReference
    tasks: Mapping[str, str] | None = None
    licences: Items[str] | None = None
    unlicensed: Count = 0
    datasets: Items[str] = ()
    no_derivatives: Items[str] = ()
    sources: Items[SourceAdapter] | None = None
    cost: Cost | None = None
    versions: Versions | None = None
    command: str | None = None
    options: Mapping[str, JsonValue] | None = None
    error: Number | None = None
    selection: Mapping[str, JsonValue] | None = None
    evidence: Mapping[str, JsonValue] | None = None
    explanation: Mapping[str, JsonValue] | None = None
    files: Files | None = None


class Parent(Part):
    """The adapter that ``finetune`` started from.

    Args:
        name: the name of its folder.
        sha256: the hex SHA-256 of its weights.
        schema_: the schema of its own ``icmlora.json``; None if it had none, as for the next three.
        task_text: the task text that it was generated from.
        generator: the generator that made it.
        seed: the seed of z, the latent sample; None also if it is the prior's mean.
    """

    name: str
    sha256: str
    schema_: str | None = Field(None, alias="schema")
    task_text: str | None = None
    generator: GeneratorReference | None = None
    seed: Seed | None = None


class TrainedOn(Part):
    """The examples of ``finetune``: their number, the hex SHA-256 of their file, and the template of the prompts."""

    examples: Count
    sha256: str
    template: str | None = None


class Finetuned(_Output):
    """What ``finetune`` writes; ``figures`` has the NLL, ``before`` and ``after``, in nats per token."""

    schema_: Literal["icmlora.finetuned/1"] = Field("icmlora.finetuned/1", alias="schema")
    merged: Literal[False] = False
    parent: Parent | None
    base: BaseReference
    examples: TrainedOn | None = None
    recipe: Recipe | None = None
    figures: Values = Field(default_factory=dict)
    licences: Items[str] | None = None
    no_derivatives: Items[str] = ()
    versions: Versions | None = None
    command: str | None = None
    files: Files | None = None


class Exported(_Output):
    """What ``adapter export --format peft`` writes: the adapter's own manifest, and the exported checkpoint's name."""

    schema_: Literal["icmlora.exported/1"] = Field("icmlora.exported/1", alias="schema")
    merged: Literal[False] = False
    base: BaseReference
    checkpoint: str
    adapter: AdapterManifest
    licences: Items[str] | None = None
    versions: Versions | None = None
    command: str | None = None
    files: Files | None = None


class MergedShare(Part):
    """An adapter that was merged into a model, and the weight that it was given."""

    name: str
    weight: Number
    task: str | None = None
    key: str | None = None
    sha256: str
    config_sha256: str
    licence: str | None = None


class ModelFiles(Part):
    """The files of a merged model.

    Args:
        files: the number of weight files.
        tensors: the number of tensors in them.
        changed: how many of the tensors differ from the base model's.
        dtype: the number format of the tensors.
        untied: whether input and output embedding are one tensor in the base model, and two in the merged one.
    """

    files: Count
    tensors: Count
    changed: Count
    dtype: str
    untied: bool


class Merged(_Output):
    """What ``merge`` writes beside a merged model."""

    schema_: Literal["icmlora.merged/1"] = Field("icmlora.merged/1", alias="schema")
    merged: Literal[True] = True
    base: BaseReference
    adapters: Items[MergedShare] = ()
    model: ModelFiles | None = None
    licences: Items[str] | None = None
    versions: Versions | None = None
    command: str | None = None
    files: Files | None = None


class ServedFolder(_Output):
    """What lies in ``served/KEY/`` beside a harvested adapter; beside a generated one it is ``Generated``."""

    schema_: Literal["icmlora.served/1"] = Field("icmlora.served/1", alias="schema")
    task: str
    key: str
    sha256: str
    base: BaseReference
    licence: str | None = None
    versions: Versions | None = None

    @property
    def merged(self) -> bool:
        """Whether it is a whole model, which it never is."""
        return False

    @property
    def files(self) -> Files | None:
        """The files that it lists, of which there are none."""
        return None


Output = Generated | Finetuned | Exported | Merged | ServedFolder
_KINDS: Mapping[str, type[Output]] = {
    "icmlora.generated/1": Generated,
    "icmlora.finetuned/1": Finetuned,
    "icmlora.exported/1": Exported,
    "icmlora.merged/1": Merged,
    "icmlora.served/1": ServedFolder,
}


class _Kind(BaseModel):
    """The one key that says of which kind an ``icmlora.json`` is."""

    schema_: str = Field(alias="schema")


def read_output(folder: Path) -> Output:
    """Read the ``icmlora.json`` of a folder, whatever kind of output it describes.

    Raises:
        FileNotFoundError: If the folder has no such file.
        CorruptFileError: If it is broken, or of no kind that this version knows.
    """
    path = folder / ABOUT
    data = path.read_bytes()
    try:
        schema = _Kind.model_validate_json(data).schema_
    except ValidationError as error:
        raise broken(path, error, hint=_Output.HINT) from error
    if schema not in _KINDS:
        message = f"{ABOUT} is broken at schema: {schema[:80]!r} is none that this version reads"
        raise CorruptFileError(message, where=str(path), hint=_Output.HINT)
    return _KINDS[schema].parse(data, path)
