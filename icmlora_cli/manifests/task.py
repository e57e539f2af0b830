"""The ``task.json`` of a registered task."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from icmlora_cli.manifests.model import Count, Items, Manifest, Part
from icmlora_cli.manifests.parts import Versions

Share = Annotated[float, Field(ge=0, lt=1)]


class TemplateText(Part):
    """How an example is written; ``registry.task_record.PromptTemplate`` describes each field."""

    kind: Literal["plain", "chat", "text"]
    prompt: str
    answer: str


class ReadAs(Part):
    """The rule by which rows became examples, and the columns that no example holds."""

    rule: str
    not_read: Items[str] = ()


class Made(Part):
    """When and how a task was added.

    Args:
        created: the UTC time, ISO 8601.
        command: the command line.
        versions: the versions of the packages.
        examples: how rows became examples; None if the task has no file of rows.
    """

    created: str | None = None
    command: str | None = None
    versions: Versions | None = None
    examples: ReadAs | None = None


class TaskManifest(Manifest):
    """What ``task.json`` holds; ``registry.task_record.Task`` describes each field."""

    HINT: ClassVar[str] = "add the task again with --force, or remove it: icmlora task remove NAME --yes"

    schema_: Literal["icmlora.task/1"] = Field("icmlora.task/1", alias="schema")
    name: str
    descriptions: Items[str] = Field(min_length=1)
    template: TemplateText
    metric: str  # not checked here: the package that adds the metric may be missing until it is needed
    split: Literal["train", "unseen"]
    splits: Mapping[str, Share]
    licence: str | None
    source: str | None
    family: str | None
    data_hash: str
    counts: Mapping[str, Count]
    examples_sha256: str
    made: Made | None = None
