"""Rows of a batch one after the other in a single sequence, without padding; none of them sees another.

Positions start again with each row, which is how transformers tells packed rows apart (``find_packed_sequence_indices``
of ``masking_utils``, and the kernels of flash attention for rows of any length).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.architectures import only_decoders
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded

LEAK = 1e-5  # change of log-probabilities, in nats, beyond which a row has seen another


@dataclass(frozen=True)
class PackedBatch:
    """Rows in a single sequence.

    Args:
        input_ids: int64 [1, T], T being the sum of the rows' lengths.
        position_ids: int64 [1, T], counted from each row's first token.
        predicting: int64 [K], the positions whose logits predict the tokens of the answers.
        labels: int64 [K], these tokens.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicting: torch.Tensor
    labels: torch.Tensor


def pack(rows: Sequence[Encoded], device: torch.device) -> PackedBatch:
    """Put rows one after the other.

    Args:
        rows: the examples; each has a prompt of a token or more, whose last one predicts the answer's first.
        device: where the tensors are made.
    """
    ids, positions, predicting, labels = list[int](), list[int](), list[int](), list[int]()
    for row in rows:
        start = len(ids) + len(row.prompt_ids) - 1
        predicting += range(start, start + len(row.answer_ids))
        labels += row.answer_ids
        ids += row.prompt_ids + row.answer_ids
        positions += range(row.length)

    def tensor(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=device)

    return PackedBatch(tensor(ids)[None], tensor(positions)[None], tensor(predicting), tensor(labels))


def packed_log_probs(model: torch.nn.Module, batch: PackedBatch) -> torch.Tensor:
    """Run the model, and return its log-probability of each answer token, fp32 [K]; logits are computed only there."""
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=batch.predicting,
    ).logits[0]  # (K, vocabulary)
    return torch.log_softmax(logits.float(), dim=-1).gather(1, batch.labels[:, None])[:, 0]


@torch.no_grad()
def check_apart(loaded: LoadedBase, model: torch.nn.Module) -> None:
    """Check that the rows of a packed batch do not see each other in this model.

    Args:
        loaded: the base.
        model: the base, or the same with an adapter on it.

    Raises:
        UsageError: if the base has an encoder, or they do, as in models with a state that runs on from token to token.
    """
    only_decoders(loaded.model, loaded.base.name, "packing")
    last = Encoded((5, 6, 7), (8, 9))
    found = [
        packed_log_probs(model, pack([Encoded(first, (6,)), last], loaded.device))[1:]
        for first in ((5, 6, 7, 8), (9, 8, 7, 5))
    ]
    if float((found[0] - found[1]).abs().max()) > LEAK:
        raise UsageError(
            f"packing: rows of a packed sequence see each other in {loaded.base.architecture}",
            hint="packing: false in the harvest recipe",
        )
