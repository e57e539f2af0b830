"""Small files beside other things: why something is in quarantine, and what an evaluation took."""

from typing import ClassVar, Literal

from pydantic import Field

from icmlora_cli.manifests.model import Manifest, Part, Values


class QuarantineNote(Manifest):
    """``why.json`` of a folder in quarantine.

    Args:
        was: where the thing was, within the registry or its cache.
        why: it is no longer there.
        when: UTC time, ISO 8601.
    """

    SEALED: ClassVar[bool] = False

    schema_: Literal["icmlora.quarantine/1"] = Field("icmlora.quarantine/1", alias="schema")
    was: str
    why: str
    when: str


class ScoreTime(Part):
    """The seconds that a method took on a task, by step."""

    task: str
    method: str
    seconds: Values = Field(exclude=True)

    def content(self) -> dict[str, object]:
        """Return the JSON form, in which the steps stand beside task and method."""
        return super().content() | dict(self.seconds)


class Timings(Manifest):
    """``timings.json`` of an evaluation: wall times, apart from the result, which is the same each time."""

    SEALED: ClassVar[bool] = False

    schema_: Literal["icmlora.timings/2"] = Field("icmlora.timings/2", alias="schema")
    unit: Literal["seconds"]
    scores: tuple[ScoreTime, ...]

    def content(self) -> dict[str, object]:
        """Return the JSON form."""
        return super().content() | {"scores": [item.content() for item in self.scores]}
