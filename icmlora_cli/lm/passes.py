"""Forward and backward passes of a step: all rows at once, some at a time, or packed; the gradients are the same."""

from collections.abc import Sequence

import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import answer_log_probs
from icmlora_cli.lm.compiling import bucket, compiled
from icmlora_cli.lm.optimise import apply_gradients
from icmlora_cli.lm.packing import check_apart, pack, packed_log_probs
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.trainers import AdapterTrainer


class StepPasses:
    """The passes of the steps of one trainer.

    Args:
        trainer: the base with its adapter; its recipe says how rows go through the base.

    Raises:
        UsageError: if rows are to be packed, and would see each other in this base, or passes are to be compiled too.
    """

    def __init__(self, trainer: AdapterTrainer) -> None:
        """Check whether rows can be packed, where the recipe packs them."""
        self.trainer, recipe = trainer, trainer.recipe
        if recipe.packing and recipe.compile:
            raise UsageError(
                "packing gives every pass another shape, and compile wants few", hint="one of the two in the recipe"
            )
        if recipe.packing:
            check_apart(trainer.loaded, trainer.model)
        self._model = compiled(trainer.model, on=recipe.compile)
        self._size = bucket if recipe.compile else int

    def gradients(self, rows: Sequence[Encoded]) -> torch.Tensor:
        """Give what is trained the gradients of a step's loss, and return the loss, a scalar, nats per answer token.

        Where memory does not suffice for the rows of a pass, they go through the base in several.

        Args:
            rows: The rows of the step; the loss is the mean over all tokens of their answers.

        Raises:
            DeviceMemoryError: If memory does not suffice for one row.
        """
        limit = min(self.trainer.recipe.micro_batch or len(rows), len(rows))
        return self.trainer.loaded.micro_batch.whole("training", limit, lambda size: self._gradients(rows, size))

    def _gradients(self, rows: Sequence[Encoded], size: int) -> torch.Tensor:
        for parameter in self.trainer.parameters.values():
            parameter.grad = None
        tokens = sum(len(row.answer_ids) for row in rows)
        total = torch.zeros((), device=self.trainer.loaded.device)
        for start in range(0, len(rows), size):
            loss = -self._log_probs(rows[start : start + size]).sum() / tokens
            loss.backward()
            total = total + loss.detach().to(total.device)
        return total

    def _log_probs(self, rows: Sequence[Encoded]) -> torch.Tensor:
        """Return the log-probabilities of the answers' tokens, with zeros among them."""
        loaded = self.trainer.loaded
        if self.trainer.recipe.packing:
            return packed_log_probs(self._model, pack(rows, loaded.device))
        batch = loaded.batch(rows, size=self._size)
        return answer_log_probs(self._model, batch)[0]


def take_step(
    passes: StepPasses, rows: Sequence[Encoded], optimizer: torch.optim.Optimizer, step: int
) -> tuple[float, float]:
    """Take one step on some rows; none where the loss or its gradient is not finite, so that the weights stay good.

    Args:
        passes: The passes of the trainer.
        rows: The rows of the step.
        optimizer: The optimizer of the adapter's parameters.
        step: The steps done before it, which gives the rate.

    Returns:
        The loss before the step in nats per answer token, and the norm of its gradient before it is clipped.

    Raises:
        DeviceMemoryError: If memory does not suffice for one row.
    """
    return apply_gradients(passes.gradients(rows), optimizer, passes.trainer.recipe, step)
