"""JSON files of other programs of which icmlora needs only some keys; the other keys are ignored."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icmlora_cli.manifests.model import broken

F = TypeVar("F", bound="Foreign")


class Foreign(BaseModel):
    """A JSON file of another program, reduced to the keys that are needed."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    @classmethod
    def read(cls: type[F], path: Path) -> F:
        """Read the keys that are needed.

        Raises:
            FileNotFoundError: If there is no such file.
            CorruptFileError: If it is no JSON, or one of the keys is something else.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise broken(path, error, hint=None) from error


class SafetensorsIndex(Foreign):
    """The ``model.safetensors.index.json`` of a model in several files, which names the file of each tensor."""

    weight_map: Mapping[str, str] = Field(default_factory=dict)

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the files, sorted."""
        return tuple(sorted(set(self.weight_map.values())))


class BaseOfConfig(Foreign):
    """The base model that PEFT's ``adapter_config.json`` names."""

    base_model_name_or_path: str | None = None
