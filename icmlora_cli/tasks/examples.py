"""One example of a task, and the identity of its content."""

import hashlib
import json
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Example:
    """One (input, output) pair of a task, both plain text."""

    input: str
    output: str

    @property
    def key(self) -> str:
        """Hex SHA-256 of the content: equal examples share it wherever they came from."""
        return hashlib.sha256(json.dumps([self.input, self.output]).encode()).hexdigest()

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form that ``examples.jsonl`` holds."""
        return {"input": self.input, "output": self.output}
