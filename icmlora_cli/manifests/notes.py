"""Two small JSON files: why something is in quarantine, and how long an evaluation took."""

from typing import ClassVar, Literal

from pydantic import Field

from icmlora_cli.manifests.model import Manifest, Part, Values

Reason = Literal["damaged", "replaced", "copied"]
Thing = Literal["task", "adapter", "generator", "base", "baseline", "result", "vector", "file"]


class QuarantineNote(Manifest):
    """The ``why.json`` of a folder in quarantine.

    Args:
        was: the path where the thing was, relative to the root of the registry or of its cache.
        why: why it was moved, in words.
        when: the UTC time of the move, ISO 8601.
        reason: ``damaged``, ``replaced`` by something that is already in place, or ``copied`` before it was replaced;
            None in notes of 0.1.0, which did not record it.
        thing: what it is; None if it is only a file that nothing lists.
        name: the name of the thing.
        mend: the command that makes it again.
        settled: whether it has been made again or put back, so that nothing is missing any more.
    """

    CHECKSUMMED: ClassVar[bool] = False

    schema_: Literal["icmlora.quarantine/1"] = Field("icmlora.quarantine/1", alias="schema")
    was: str
    why: str
    when: str
    reason: Reason | None = None
    thing: Thing | None = None
    name: str = ""
    mend: str = ""
    settled: bool = False


class ScoreTime(Part):
    """The seconds that each step of a method took on a task."""

    task: str
    method: str
    seconds: Values = Field(exclude=True)

    def content(self) -> dict[str, object]:
        """Return the JSON form, in which the steps are keys beside ``task`` and ``method``."""
        return super().content() | dict(self.seconds)


class Timings(Manifest):
    """The ``timings.json`` of an evaluation.

    Wall times are in a file of their own, so that the result of the same evaluation is always the same.
    """

    CHECKSUMMED: ClassVar[bool] = False

    schema_: Literal["icmlora.timings/2"] = Field("icmlora.timings/2", alias="schema")
    unit: Literal["seconds"]
    scores: tuple[ScoreTime, ...]

    def content(self) -> dict[str, object]:
        """Return the JSON form, with that of each score."""
        return super().content() | {"scores": [item.content() for item in self.scores]}
