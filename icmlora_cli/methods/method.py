"""The interface of all methods of a comparison: a method serves a task through weights or through the prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from icmlora_cli.registry.tasks import Task
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter

Uses = Literal["nothing", "text", "examples", "text and examples", "training data"]
"""What a method knows of the task that it serves."""


class UnavailableError(Exception):
    """A method cannot serve a task; the message is the reason that its score states."""


@dataclass(frozen=True)
class TaskContext:
    """What a method may know of the task that it serves; an evaluation makes one for each task.

    Args:
        task: the task; methods must not use its test examples, which are for scoring alone.
        shots: the k examples, from the task's part ``train``, that every method is given alike.
    """

    task: Task
    shots: tuple[Example, ...]

    @property
    def text(self) -> str:
        """The task in words, which is its main description."""
        return self.task.descriptions[0]


@dataclass(frozen=True)
class Served:
    """How a method serves a task: with which adapter, and with what in the prompt.

    Args:
        adapter: the adapter that is merged into the base; None leaves the base as it is.
        described: whether each prompt begins with the task's description.
        shots: the examples that stand in each prompt.
        about: further facts for the result's JSON, such as neighbours, steps, or which sample was chosen.
    """

    adapter: Adapter | None = None
    described: bool = False
    shots: tuple[Example, ...] = ()
    about: Mapping[str, object] = field(default_factory=dict)


class Method(Protocol):
    """One way to serve a task, which an evaluation scores: given the task's context, it returns adapter and prompt."""

    @property
    def name(self) -> str:
        """The method's name in tables and JSON."""

    @property
    def title(self) -> str:
        """The method's title for people, a few words."""

    @property
    def uses(self) -> Uses:
        """What the method knows of the task."""

    def identity(self, context: TaskContext) -> object:
        """Return all that decides what ``serve`` returns, in JSON's types, except for base, task and shots."""

    def serve(self, context: TaskContext) -> Served:
        """Return how the task is served.

        Raises:
            UnavailableError: If the method cannot serve the task.
        """
