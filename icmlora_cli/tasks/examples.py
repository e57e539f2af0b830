"""One example of a task, and the hash of its content."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from icmlora_cli.errors import CorruptFileError


@dataclass(frozen=True, order=True)
class Picture:
    """An image, which is known by its bytes.

    Args:
        sha256: the hex SHA-256 of its bytes.
        suffix: how the name of a file of its format ends, such as ``.png``.
        source: its bytes, or the file that holds them.
    """

    sha256: str
    suffix: str
    source: bytes | Path = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """The name of its file in the registry."""
        return self.sha256 + self.suffix

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            CorruptFileError: If its file is missing, or holds something else by now.
        """
        if isinstance(self.source, bytes):
            return self.source
        hint = "put the file back, or add the task again with --force"
        try:
            data = self.source.read_bytes()
        except OSError as error:
            raise CorruptFileError(
                f"the image {self.source.name} cannot be read: {error.strerror}", where=str(self.source), hint=hint
            ) from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise CorruptFileError(
                f"the image {self.source.name} is not the one that was read before", where=str(self.source), hint=hint
            )
        return data


@dataclass(frozen=True, order=True)
class Example:
    """One input of a task and its expected output, both plain text, perhaps with an image that the input is about."""

    input: str
    output: str
    picture: Picture | None = field(default=None, kw_only=True)

    @property
    def content(self) -> list[str]:
        """What it consists of: input, output and, where there is one, the hash of the image."""
        return [self.input, self.output, *([] if self.picture is None else [self.picture.sha256])]

    @property
    def key(self) -> str:
        """The hex SHA-256 of the content, which is the same for equal examples."""
        return hashlib.sha256(json.dumps(self.content).encode()).hexdigest()

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form that ``examples.jsonl`` holds."""
        image = {} if self.picture is None else {"image": self.picture.name}
        return {"input": self.input, "output": self.output, **image}


def have_pictures(examples: Iterable[Example]) -> bool:
    """Tell whether examples are about images."""
    return any(item.picture is not None for item in examples)
