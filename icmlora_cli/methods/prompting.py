"""Methods that leave the weights alone: the base as it is, with the description, with examples in its prompt."""

from dataclasses import dataclass

from icmlora_cli.methods.method import Served, TaskContext, UnavailableError, Uses


@dataclass(frozen=True)
class BaseMethod:
    """The base model as it is."""

    name: str = "base"
    title: str = "base model"
    uses: Uses = "nothing"

    def identity(self, context: TaskContext) -> object:
        """Return nothing more: the base is all there is."""
        return None

    def serve(self, context: TaskContext) -> Served:
        """Return the bare base."""
        return Served()


@dataclass(frozen=True)
class DescribedMethod:
    """The base with the task's description before each prompt."""

    name: str = "described"
    title: str = "base, description in the prompt"
    uses: Uses = "text"

    def identity(self, context: TaskContext) -> object:
        """Return the text."""
        return context.text

    def serve(self, context: TaskContext) -> Served:
        """Return the base with a described prompt."""
        return Served(described=True)


@dataclass(frozen=True)
class InContextMethod:
    """The base with k examples before each prompt (in-context learning)."""

    name: str = "in-context"
    title: str = "base, k examples in the prompt"
    uses: Uses = "examples"

    def identity(self, context: TaskContext) -> object:
        """Return nothing more: the shots are part of every score's key."""
        return None

    def serve(self, context: TaskContext) -> Served:
        """Return the base with the shots in the prompt.

        Raises:
            UnavailableError: if the task has no example to show.
        """
        if not context.shots:
            raise UnavailableError("the task has no training example to show")
        return Served(shots=context.shots)
