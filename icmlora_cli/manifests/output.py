"""``icmlora.json`` beside what icmlora writes outside of the registry: how an adapter or a model was made."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, JsonValue, ValidationError

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.adapter import AdapterManifest
from icmlora_cli.manifests.model import Count, Manifest, Number, Part, Seed, Values, broken
from icmlora_cli.manifests.parts import (
    BaseReference,
    Cost,
    GeneratorReference,
    HashedFile,
    Recipe,
    SourceAdapter,
    Versions,
)

ABOUT = "icmlora.json"
Files = Mapping[str, HashedFile]


class _Output(Manifest):
    """What all kinds have: no checksum of their own, for push shortens paths in them."""

    CHECKSUMMED: ClassVar[bool] = False
    HINT: ClassVar[str] = "make the folder again: the command is in icmlora.json, or in README.md"


class Generated(_Output):
    """What ``gen`` writes beside an adapter or merged model.

    Args:
        task_text: what was asked for.
        merged: whether it is a whole model.
        seed: of z; None for the prior's mean.
        generator: what made it.
        base: its base model.
        tasks: name and first description of each task that the generator learned from.
        licences: of these.
        unlicensed: how many of them state none.
        datasets: those of the hub.
        no_derivatives: the licences that forbid derivatives.
        sources: how the adapters that the generator learned from were made.
        cost: of the generator.
        versions: of the packages.
        command: the command line.
        options: what was asked for, where that was more than a text and a seed.
        error: relative error of delta-W that a lower rank and number format cost.
        selection: how samples and base scored on examples.
        explanation: what the adapter is near to.
        files: name to bytes and SHA-256; not the card.
    """

    schema_: Literal["icmlora.generated/1"] = Field("icmlora.generated/1", alias="schema")
    task_text: str
    merged: bool
    seed: Seed | None
    generator: GeneratorReference
    base: BaseReference
    tasks: Mapping[str, str] | None = None
    licences: tuple[str, ...] | None = None
    unlicensed: Count = 0
    datasets: tuple[str, ...] = ()
    no_derivatives: tuple[str, ...] = ()
    sources: tuple[SourceAdapter, ...] | None = None
    cost: Cost | None = None
    versions: Versions | None = None
    command: str | None = None
    options: Mapping[str, JsonValue] | None = None
    error: Number | None = None
    selection: Mapping[str, JsonValue] | None = None
    explanation: Mapping[str, JsonValue] | None = None
    files: Files | None = None


class Parent(Part):
    """What ``finetune`` started from: its folder's name, its weights' hash, and what its own ``icmlora.json`` said."""

    name: str
    sha256: str
    schema_: str | None = Field(None, alias="schema")
    task_text: str | None = None
    generator: GeneratorReference | None = None
    seed: Seed | None = None


class TrainedOn(Part):
    """The examples of ``finetune``: how many, the hash of the file, how they were written."""

    examples: Count
    sha256: str
    template: str | None = None


class Finetuned(_Output):
    """What ``finetune`` writes; ``figures``: NLL on the examples, ``before`` and ``after``."""

    schema_: Literal["icmlora.finetuned/1"] = Field("icmlora.finetuned/1", alias="schema")
    merged: Literal[False] = False
    parent: Parent | None
    base: BaseReference
    examples: TrainedOn | None = None
    recipe: Recipe | None = None
    figures: Values = Field(default_factory=dict)
    licences: tuple[str, ...] | None = None
    no_derivatives: tuple[str, ...] = ()
    versions: Versions | None = None
    command: str | None = None
    files: Files | None = None


class Exported(_Output):
    """What ``adapter export --format peft`` writes: the adapter's own manifest, and which checkpoint it is."""

    schema_: Literal["icmlora.exported/1"] = Field("icmlora.exported/1", alias="schema")
    merged: Literal[False] = False
    base: BaseReference
    checkpoint: str
    adapter: AdapterManifest
    licences: tuple[str, ...] | None = None
    versions: Versions | None = None
    command: str | None = None
    files: Files | None = None


class MergedShare(Part):
    """An adapter that was merged, and its weight."""

    name: str
    weight: Number
    task: str | None = None
    key: str | None = None
    sha256: str
    config_sha256: str
    licence: str | None = None


class ModelFiles(Part):
    """The files of a merged model: how many, their tensors, how many of these changed, their number format."""

    files: Count
    tensors: Count
    changed: Count
    dtype: str
    untied: bool


class Merged(_Output):
    """What ``merge`` writes."""

    schema_: Literal["icmlora.merged/1"] = Field("icmlora.merged/1", alias="schema")
    merged: Literal[True] = True
    base: BaseReference
    adapters: tuple[MergedShare, ...] = ()
    model: ModelFiles | None = None
    licences: tuple[str, ...] | None = None
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
        """Whether it is a whole model: it never is."""
        return False

    @property
    def files(self) -> Files | None:
        """It lists none."""
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
    schema_: str = Field(alias="schema")


def read_output(folder: Path) -> Output:
    """Read the ``icmlora.json`` of a folder, of whichever kind it is.

    Raises:
        FileNotFoundError: If there is none.
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
