"""Methods that change only the prompt: the bare base, the base with the description, the base with examples."""

from dataclasses import dataclass

from icmlora_cli.methods.method import Served, TaskContext, UnavailableError, Uses


@dataclass(frozen=True)
class BaseMethod:
    """The bare base model."""

    name: str = "base"
    title: str = "base model"
    uses: Uses = "nothing"

    def identity(self, context: TaskContext) -> object:
        """Return None, since the base alone decides what is served."""
        return None

    def serve(self, context: TaskContext) -> Served:
        """Return the bare base."""
        return Served()


@dataclass(frozen=True)
class DescribedMethod:
    """The base with the task's description at the start of each prompt."""

    name: str = "described"
    title: str = "base, description in the prompt"
    uses: Uses = "text"

    def identity(self, context: TaskContext) -> object:
        """Return the description."""
        return context.text

    def serve(self, context: TaskContext) -> Served:
        """Return the base with the description in the prompt."""
        return Served(described=True)


@dataclass(frozen=True)
class InContextMethod:
    """The base with k examples at the start of each prompt (in-context learning)."""

    name: str = "in-context"
    title: str = "base, k examples in the prompt"
    uses: Uses = "examples"

    def identity(self, context: TaskContext) -> object:
        """Return None, since the shots are part of every score's key."""
        return None

    def serve(self, context: TaskContext) -> Served:
        """Return the base with the shots in the prompt.

        Raises:
            UnavailableError: If the task has no training example.
        """
        if not context.shots:
            raise UnavailableError("the task has no training example to show")
        return Served(shots=context.shots)
