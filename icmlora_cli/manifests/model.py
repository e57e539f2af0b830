"""What all manifests share: strict values, the same bytes when written again, and one error for a broken one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icmlora_cli.disk import checksums, files
from icmlora_cli.errors import CorruptFileError

Count = Annotated[int, Field(ge=0, le=2**53)]  # of things, bytes or steps; JSON numbers are exact up to there
Size = Annotated[int, Field(ge=1, le=2**31)]  # of a tensor's dimension
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Number = float | Annotated[int, Field(ge=-(2**53), le=2**53)]  # the whole ones stay whole when they are written again
Values = Mapping[str, Number]
_BRANCHES = {"int", "float", "constrained-int"}  # of a union: no keys of the file

Self = TypeVar("Self", bound="Manifest")


class Part(BaseModel):
    """An object within a manifest.

    Keys that this version does not know are kept, so that what a later one wrote is passed on whole.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)

    def content(self) -> dict[str, object]:
        """Return the JSON form: the keys that were given, in their order."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Manifest(Part):
    """A whole JSON file.

    ``schema`` is a method of pydantic's models: the field has a name of its own, and that alias.
    """

    CHECKSUMMED: ClassVar[bool] = True
    HINT: ClassVar[str | None] = None

    def model_post_init(self, context: object, /) -> None:
        """Let the schema be written also where a caller leaves it to its default."""
        self.model_fields_set.add("schema_")

    @classmethod
    def known_keys(cls) -> frozenset[str]:
        """Return the keys that this version writes."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def parse(cls: type[Self], data: bytes | str, path: Path, *, hint: str | None = None) -> Self:
        """Return the manifest of a file's content.

        Args:
            data: the content.
            path: the file, for the message.
            hint: what to type where it is broken; by default what its kind advises.

        Raises:
            CorruptFileError: If it is no JSON, lacks a key, or has a value that cannot be.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise broken(path, error, hint=hint or cls.HINT) from error

    @classmethod
    def read(cls: type[Self], path: Path, *, hint: str | None = None) -> Self:
        """Read a manifest; see ``parse``.

        Raises:
            FileNotFoundError: If there is none.
            CorruptFileError: If it is broken.
        """
        return cls.parse(path.read_bytes(), path, hint=hint)

    @classmethod
    def of(cls: type[Self], value: Mapping[str, object]) -> Self:
        """Return the manifest of JSON values, as it would be read from a file.

        Raises:
            ValidationError: If it would be refused there.
        """
        return cls.model_validate_json(json.dumps(value))

    def content(self) -> dict[str, object]:
        """Return the JSON form without its checksum: the keys that were given, in the order of the file."""
        value = super().content()
        value.pop(checksums.KEY, None)
        return value

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all, with its checksum where its kind has one.

        Raises:
            OutOfSpaceError: If the disk is full.
        """
        (checksums.write_manifest if self.CHECKSUMMED else files.write_json)(path, self.content())


def broken(path: Path, error: ValidationError, *, hint: str | None) -> CorruptFileError:
    """Return the one error for a manifest that cannot be used: it names the file and the key.

    Args:
        path: the file.
        error: what pydantic found; the first fault is told.
        hint: what to type next.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        cause = first["msg"].removeprefix("Invalid JSON: ")
        return CorruptFileError(f"{path.name} is not valid JSON: {cause}", where=str(path), hint=hint)
    keys = [str(key) for key in first["loc"] if key not in _BRANCHES and not str(key).endswith("]")]
    if not keys:
        return CorruptFileError(f"{path.name} does not hold a JSON object", where=str(path), hint=hint)
    what = first["msg"][0].lower() + first["msg"][1:]
    return CorruptFileError(f"{path.name} is broken at {'.'.join(keys)}: {what}", where=str(path), hint=hint)
