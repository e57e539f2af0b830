"""Control methods, which should not work: noise of the right size, and another task's description."""

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from icmlora_cli.methods.harvested import Library
from icmlora_cli.methods.method import Served, TaskContext, UnavailableError, Uses
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.compare import inner
from icmlora_cli.weights.seeds import named_source

TOO_ALIKE = 0.5  # share of words in common from which another description is too like the task's to be a control


@dataclass(frozen=True)
class NoiseMethod:
    """A control: Gaussian factors, scaled to the mean Frobenius norm of the harvested adapters' delta-W by module.

    Args:
        library: the harvested adapters whose norms are taken.
        seed: the seed of the noise, which also depends on the task's name.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        uses: what the method knows of the task.
    """

    library: Library
    seed: int
    name: str = "noise"
    title: str = "noise of the harvested adapters' norm"
    uses: Uses = "nothing"

    def identity(self, context: TaskContext) -> object:
        """Return the identity of the adapters whose norms are taken, and the seed."""
        return [self.library.identity(), self.seed]

    def serve(self, context: TaskContext) -> Served:
        """Return an adapter of noise, which is always the same for a task.

        Raises:
            UnavailableError: If no training task has a harvested adapter.
        """
        adapters = self.library.adapters()
        rng = named_source(self.seed, context.task.name)
        factors: dict[str, Factors] = {}
        first = adapters[0]
        for module, item in first.factors.items():
            norms = [math.sqrt(inner(other, other, module)) for other in adapters]
            lora_a = torch.randn(item.lora_a.shape, generator=rng)
            lora_b = torch.randn(item.lora_b.shape, generator=rng)
            drawn = Adapter("", float(first.rank), {module: Factors(lora_a, lora_b)})
            size = math.sqrt(inner(drawn, drawn, module))
            factors[module] = Factors(lora_a, lora_b * (sum(norms) / len(norms) / size))
        return Served(Adapter(first.base_model, float(first.rank), factors, fan_in_fan_out=first.fan_in_fan_out))


def words_in_common(first: str, second: str) -> float:
    """Return the share of the words of two texts that both have, 0 to 1 (Jaccard; case and punctuation are ignored)."""
    one, two = _words(first), _words(second)
    return len(one & two) / len(one | two) if one | two else 1.0


def _words(text: str) -> frozenset[str]:
    return frozenset("".join(char if char.isalnum() else " " for char in text.casefold()).split())


@dataclass(frozen=True)
class SwappedText:
    """Chooses the description of another task, for the method ``swapped-text``; the choice for a task never changes.

    Preferred are tasks of other families whose descriptions share few words with the task's.

    Args:
        texts: the main description of each task that can be chosen, by the task's name.
        families: the family of each task, by the task's name.
    """

    texts: Mapping[str, str]
    families: Mapping[str, str | None]

    def other(self, context: TaskContext) -> str | None:
        """Return the name of the task whose description is given instead; None if there is no other task."""
        name, family = context.task.name, context.task.family
        others = [other for other in sorted(self.texts) if other != name]
        apart = [other for other in others if family is None or self.families.get(other) != family]
        unlike = [other for other in apart if words_in_common(self.texts[other], context.text) < TOO_ALIKE]
        candidates = unlike or apart or others
        if not candidates:
            return None
        return random.Random(hashlib.sha256(f"swapped text of {name}".encode()).digest()).choice(candidates)

    def __call__(self, context: TaskContext) -> str:
        """Return the other task's description.

        Raises:
            UnavailableError: If there is no other task.
        """
        other = self.other(context)
        if other is None:
            raise UnavailableError("there is no other task whose description could be swapped in")
        return self.texts[other]
