"""What a method of the comparison is: one way to serve a task, through weights or through the prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from icmlora_cli.registry.tasks import Task
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter

Uses = Literal["nothing", "text", "examples", "text and examples", "training data"]


class UnavailableError(Exception):
    """A method has nothing for this task; the reason is shown in its score."""


@dataclass(frozen=True)
class TaskContext:
    """What a method may be told of a task.

    Args:
        task: the task; its test examples are for scoring alone.
        shots: k examples of its part ``train``, the same for every method.
    """

    task: Task
    shots: tuple[Example, ...]

    @property
    def text(self) -> str:
        """The task in words: its main description."""
        return self.task.descriptions[0]


@dataclass(frozen=True)
class Served:
    """How a method serves a task.

    Args:
        adapter: merged into the base; None leaves it as it is.
        described: the description stands in the prompt.
        shots: examples that stand in the prompt.
        about: what the method says of itself, for JSON: neighbours, steps, the sample chosen.
    """

    adapter: Adapter | None = None
    described: bool = False
    shots: tuple[Example, ...] = ()
    about: Mapping[str, object] = field(default_factory=dict)


class Method(Protocol):
    """One way to serve a task: task context in, adapter or prompt out."""

    @property
    def name(self) -> str:
        """The method's name in tables and JSON."""

    @property
    def title(self) -> str:
        """A few words for people."""

    @property
    def uses(self) -> Uses:
        """What it knows of the task."""

    def identity(self, context: TaskContext) -> object:
        """Return, in JSON's types, all that decides what ``serve`` gives beside base, task and shots."""

    def serve(self, context: TaskContext) -> Served:
        """Return how the task is served.

        Raises:
            UnavailableError: if the method has nothing for the task.
        """
