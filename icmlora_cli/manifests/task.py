"""``task.json``: a registered task."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from icmlora_cli.manifests.model import Count, Manifest, Part
from icmlora_cli.manifests.parts import Versions

Share = Annotated[float, Field(ge=0, lt=1)]


class TemplateText(Part):
    """How an example is written; see ``registry.task_record.PromptTemplate``."""

    kind: Literal["plain", "chat", "text"]
    prompt: str
    answer: str


class ReadAs(Part):
    """The rule by which rows became examples, and the columns that no example holds."""

    rule: str
    not_read: tuple[str, ...] = ()


class Made(Part):
    """When and how a task was added: UTC time, command line, versions of the packages, and how its rows were read."""

    created: str | None = None
    command: str | None = None
    versions: Versions | None = None
    examples: ReadAs | None = None


class TaskManifest(Manifest):
    """What ``task.json`` holds; see ``registry.task_record.Task``."""

    HINT: ClassVar[str] = "add the task again with --force, or remove it: icmlora task remove NAME --yes"

    schema_: Literal["icmlora.task/1"] = Field("icmlora.task/1", alias="schema")
    name: str
    descriptions: tuple[str, ...] = Field(min_length=1)
    template: TemplateText
    metric: str  # one of a package that is gone is told when it is needed
    split: Literal["train", "unseen"]
    splits: Mapping[str, Share]
    licence: str | None
    source: str | None
    family: str | None
    data_hash: str
    counts: Mapping[str, Count]
    examples_sha256: str
    made: Made | None = None
