"""What is watched while a generator trains, so that a collapse to one adapter for all texts shows at once."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.generator.conditions import Support
from icmlora_cli.generator.interface import Network
from icmlora_cli.workflows.train.episodes import TaskValidation

TASKS = 16  # the probe's tasks, at most
QUERIES = 4  # of each of them, at most


@dataclass(frozen=True)
class Probe:
    """Some training tasks, whose adapters are made from their first descriptions at every look.

    Args:
        supports: The support of each task's first description.
        scale: The factor of each module's normalised cores, fp32 [modules].
        mask: True where a core has numbers, bool [modules, R, R].
        queries: Scores the same tasks through the base; None where no query goes through it.
    """

    supports: Sequence[Support]
    scale: torch.Tensor
    mask: torch.Tensor
    queries: TaskValidation | None = None

    def __call__(self, model: Network) -> Mapping[str, float]:
        """Return the figures by name.

        ``cosine`` is the mean cosine between the generated delta-W of two tasks: 1 where all are the same. Where there
        are episodes, ``own_nll`` is the NLL of the tasks' queries under their own adapters, and ``swapped_nll`` that
        under the adapters of other tasks, both in nats per answer token: equal where the text makes no difference.
        """
        device = next(model.parameters()).device
        c = model.read(Support.stack(self.supports).to(device))
        made = model.decode(model.sample_latent(c, None), c)
        cores = made * self.scale.to(device)[:, None, None] * self.mask.to(device)
        unit = torch.nn.functional.normalize(cores.flatten(1), dim=1)
        cosines, count = unit @ unit.T, len(cores)
        figures = {"cosine": float((cosines.sum() - cosines.trace()) / (count * (count - 1)))}
        if self.queries is not None:
            for name, given in (("own_nll", cores), ("swapped_nll", cores.roll(1, 0))):
                scores = self.queries.of_cores(given).values()
                figures[name] = sum(item.nll for item in scores) / len(scores)
        return figures


def chosen(count: int, seed: int) -> list[int]:
    """Return the indices of the probe's tasks among so many, in random order; the seed decides which.

    Args:
        count: The number of tasks.
        seed: The seed of the recipe.
    """
    return random.Random(f"icmlora probe {seed}").sample(range(count), min(TASKS, count))
