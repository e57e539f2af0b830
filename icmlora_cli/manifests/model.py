"""What all manifests share.

Their values are strict, a manifest that is read and written again has the same bytes, and a broken one gives one error.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icmlora_cli.disk import checksums, files
from icmlora_cli.errors import CorruptFileError

Count = Annotated[int, Field(ge=0, le=2**53)]  # a number of things, bytes or steps; exact as a JSON number
Size = Annotated[int, Field(ge=1, le=2**31)]  # the size of a tensor's dimension
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Number = float | Annotated[int, Field(ge=-(2**53), le=2**53)]  # whole numbers stay whole when they are written again
Values = Mapping[str, Number]
T = TypeVar("T")
Items = Annotated[
    tuple[T, ...], Field(fail_fast=True)
]  # stops at the first of perhaps millions of errors, of which one is told
_BRANCHES = {
    "int",
    "float",
    "constrained-int",
}  # pydantic's names for branches of a union, no keys of the file

Self = TypeVar("Self", bound="Manifest")


class Part(BaseModel):
    """An object within a manifest.

    Keys that this version does not know are kept, so that nothing is lost of what a later version wrote.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)

    def content(self) -> dict[str, object]:
        """Return the JSON form, with the keys that were given, in their order."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Manifest(Part):
    """A whole JSON file.

    Each kind has a field ``schema_`` with the alias ``schema``, since pydantic's models have a method of that name.
    ``CHECKSUMMED`` says whether the file carries its own checksum, and ``HINT`` what to type when it is broken.
    """

    CHECKSUMMED: ClassVar[bool] = True
    HINT: ClassVar[str | None] = None

    def model_post_init(self, context: object, /) -> None:
        """Count the schema among the keys that were given, so that it is written even if it has its default."""
        self.model_fields_set.add("schema_")

    @classmethod
    def known_keys(cls) -> frozenset[str]:
        """Return the keys that this version writes."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def parse(cls: type[Self], data: bytes | str, path: Path, *, hint: str | None = None) -> Self:
        """Parse the content of a manifest's file.

        Args:
            data: the content of the file.
            path: the file, for the message.
            hint: what to type if it is broken; None takes the advice of its kind, ``HINT``.

        Raises:
            CorruptFileError: If it is no JSON, lacks a key, or has a value of a wrong type or out of bounds.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise broken(path, error, hint=hint or cls.HINT) from error

    @classmethod
    def read(cls: type[Self], path: Path, *, hint: str | None = None) -> Self:
        """Read a manifest from its file.

        Args:
            path: the file.
            hint: what to type if it is broken; None takes the advice of its kind, ``HINT``.

        Raises:
            FileNotFoundError: If there is no such file.
            CorruptFileError: If it is broken, as ``parse`` says.
        """
        return cls.parse(path.read_bytes(), path, hint=hint)

    @classmethod
    def of(cls: type[Self], value: Mapping[str, object]) -> Self:
        """Return the manifest that would be read from a file with these JSON values.

        Raises:
            ValidationError: If such a file would be refused.
        """
        return cls.model_validate_json(json.dumps(value))

    def content(self) -> dict[str, object]:
        """Return the JSON form without its checksum, with the keys that were given, in the order of the file."""
        value = super().content()
        value.pop(checksums.KEY, None)
        return value

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all, with its checksum if its kind has one.

        Raises:
            OutOfSpaceError: If the disk is full.
        """
        (checksums.write_manifest if self.CHECKSUMMED else files.write_json)(path, self.content())


def broken(path: Path, error: ValidationError, *, hint: str | None) -> CorruptFileError:
    """Return the error for a manifest that cannot be used, which names the file and the key.

    Args:
        path: the file.
        error: what pydantic found; the first problem is reported.
        hint: what to type next; None if nothing is known to help.
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
