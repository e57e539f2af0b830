"""Forward and backward passes of a step: all rows at once, some at a time, or packed; the gradients are the same."""

from collections.abc import Sequence

import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import answer_log_probs, collate
from icmlora_cli.lm.compiling import bucket, compiled
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

    def add_gradients(self, rows: Sequence[Encoded]) -> float:
        """Add the gradients of the step's loss to what is trained, and return the loss, nats per answer token.

        Args:
            rows: the rows of the step; the loss is the mean over all tokens of their answers.
        """
        tokens = sum(len(row.answer_ids) for row in rows)
        size = self.trainer.recipe.micro_batch or len(rows)
        total = 0.0
        for start in range(0, len(rows), size):
            loss = -self._log_probs(rows[start : start + size]).sum() / tokens
            loss.backward()
            total += float(loss.detach())
        return total

    def _log_probs(self, rows: Sequence[Encoded]) -> torch.Tensor:
        """Return the log-probabilities of the answers' tokens, with zeros among them."""
        loaded = self.trainer.loaded
        if self.trainer.recipe.packing:
            return packed_log_probs(self._model, pack(rows, loaded.device))
        batch = collate(rows, loaded.tokenizer.pad_token_id, loaded.device, size=self._size)
        return answer_log_probs(self._model, batch)[0]
