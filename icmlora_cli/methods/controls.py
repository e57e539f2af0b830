"""Controls that should not work: noise of the right size, and another task's description."""

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

TOO_ALIKE = 0.5  # of the words of two descriptions: such a text would not be a wrong one


@dataclass(frozen=True)
class NoiseMethod:
    """Gaussian factors, scaled so that each module's delta-W has the mean Frobenius norm of the harvested ones.

    Args:
        library: whose norms are taken.
        seed: of the noise, with the task's name.
    """

    library: Library
    seed: int
    name: str = "noise"
    title: str = "noise of the harvested adapters' norm"
    uses: Uses = "nothing"

    def identity(self, context: TaskContext) -> object:
        """Return whose norms are taken, and the seed."""
        return [self.library.identity(), self.seed]

    def serve(self, context: TaskContext) -> Served:
        """Return the task's noise.

        Raises:
            UnavailableError: if nothing was harvested.
        """
        adapters = self.library.adapters()
        source = named_source(self.seed, context.task.name)
        factors: dict[str, Factors] = {}
        first = adapters[0]
        for module, item in first.factors.items():
            norms = [math.sqrt(inner(other, other, module)) for other in adapters]
            lora_a = torch.randn(item.lora_a.shape, generator=source)
            lora_b = torch.randn(item.lora_b.shape, generator=source)
            drawn = Adapter("", float(first.rank), {module: Factors(lora_a, lora_b)})
            size = math.sqrt(inner(drawn, drawn, module))
            factors[module] = Factors(lora_a, lora_b * (sum(norms) / len(norms) / size))
        return Served(Adapter(first.base_model, float(first.rank), factors, fan_in_fan_out=first.fan_in_fan_out))


def words_in_common(first: str, second: str) -> float:
    """Return the share of the words of two texts that both have, 0 to 1 (Jaccard; case and punctuation ignored)."""
    one, two = _words(first), _words(second)
    return len(one & two) / len(one | two) if one | two else 1.0


def _words(text: str) -> frozenset[str]:
    return frozenset("".join(char if char.isalnum() else " " for char in text.casefold()).split())


@dataclass(frozen=True)
class SwappedText:
    """Chooses another task's description, one that reads differently, the same for a task each time.

    Args:
        texts: task name to main description: what can be chosen.
        families: task name to family; one of the task's own family is not chosen.
    """

    texts: Mapping[str, str]
    families: Mapping[str, str | None]

    def other(self, context: TaskContext) -> str | None:
        """Return the name of the task whose description is given instead; None where there is no other."""
        own, family = context.task.name, context.task.family
        others = [name for name in sorted(self.texts) if name != own]
        apart = [name for name in others if family is None or self.families.get(name) != family]
        unlike = [name for name in apart if words_in_common(self.texts[name], context.text) < TOO_ALIKE]
        choice = unlike or apart or others
        if not choice:
            return None
        return random.Random(hashlib.sha256(f"swapped text of {own}".encode()).digest()).choice(choice)

    def __call__(self, context: TaskContext) -> str:
        """Return the other task's description.

        Raises:
            UnavailableError: if there is no other task.
        """
        other = self.other(context)
        if other is None:
            raise UnavailableError("there is no other task whose description could be swapped in")
        return self.texts[other]
