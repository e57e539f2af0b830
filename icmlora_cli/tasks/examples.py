"""One example of a task, and the hash of its content."""

import hashlib
import json
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Example:
    """One input of a task and its expected output, both plain text."""

    input: str
    output: str

    @property
    def key(self) -> str:
        """The hex SHA-256 of the content, which is the same for equal examples."""
        return hashlib.sha256(json.dumps([self.input, self.output]).encode()).hexdigest()

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form that ``examples.jsonl`` holds."""
        return {"input": self.input, "output": self.output}
