"""Scores many cores on a few examples, and trains cores on them, with examples that are left out as judges.

All cores of a step go through the frozen base in one forward pass (see ``lm.row_cores``), so that the folds of a
cross-validation are trained side by side.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from icmlora_cli.lm.batching import answer_log_probs, collate
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.weights.codec import Codec

ROWS = 64  # rows of a forward pass without gradients


@dataclass(frozen=True)
class TuningRecipe:
    """How cores are trained on a few examples; the rate is constant after its warm-up, so that any step can be the end.

    Args:
        steps: The number of optimizer steps at most.
        learning_rate: The rate of Adam after the warm-up.
        warmup: The number of steps in which the rate rises to it.
        batch_size: The number of examples that each fold sees in a step; fewer where it has fewer.
        judge_every: The number of steps between two scorings of the examples that were left out.
        patience: The number of steps without a lower held-out NLL after which the training ends.
        seed: The seed of the order of the examples.
    """

    steps: int = 24
    learning_rate: float = 0.01
    warmup: int = 4
    batch_size: int = 8
    judge_every: int = 2
    patience: int = 6
    seed: int = 0


@dataclass(frozen=True)
class TunedCores:
    """Cores after a training.

    Args:
        cores: The cores after the last step, fp32 [folds, modules, R, R] on the CPU.
        steps: The number of steps that were taken.
        stopped: Whether it was told that it was enough before it had come to its own end.
        held_out: For each judged step, how many steps had been taken, and the mean NLL of the examples that were left
            out, nats per token; empty where none was left out.
    """

    cores: torch.Tensor
    steps: int
    stopped: bool
    held_out: tuple[tuple[int, float], ...]

    @property
    def best(self) -> tuple[int, float]:
        """The judged step with the lowest held-out NLL, and that NLL; the first of equal ones."""
        return min(self.held_out, key=lambda item: item[1])


class CoreBase:
    """A frozen base to whose modules cores of a codec are added, a core a row.

    Args:
        loaded: The base.
        codec: The codec of the cores.

    Raises:
        CorruptFileError: If the codec is of another base.
    """

    def __init__(self, loaded: LoadedBase, codec: Codec) -> None:
        """Find the codec's modules in the base."""
        self.loaded, self.codec = loaded, codec
        names = [item.name for item in codec.layout.modules]
        self.row_cores = RowCores(loaded.model, names, codec.left, codec.right)

    def losses(self, rows: Sequence[Encoded], cores: torch.Tensor) -> torch.Tensor:
        """Return the NLL of each row's answer in nats per token, fp32 [rows], with gradients to the cores.

        Args:
            rows: The examples.
            cores: The core of each row, fp32 [rows, modules, R, R], or one for all, [1, modules, R, R].
        """
        batch = collate(rows, self.loaded.tokenizer.pad_token_id, self.loaded.device)
        with self.row_cores.applied(cores):
            log_probs, _ = answer_log_probs(self.loaded.model, batch)
        counts = torch.tensor([len(row.answer_ids) for row in rows], device=log_probs.device)
        return -log_probs.sum(1) / counts

    @torch.no_grad()
    def scores(self, rows: Sequence[Encoded], cores: torch.Tensor) -> torch.Tensor:
        """Return the NLL of each row under each core in nats per token, fp32 [cores, rows] on the CPU.

        Args:
            rows: The examples.
            cores: The cores, fp32 [cores, modules, R, R].
        """
        pairs = [(at, index) for index in range(len(rows)) for at in range(len(cores))]
        pairs.sort(key=lambda pair: rows[pair[1]].length)
        table = torch.zeros(len(cores), len(rows))
        for start in range(0, len(pairs), ROWS):
            part = pairs[start : start + ROWS]
            at, index = (torch.tensor(side) for side in zip(*part, strict=True))
            losses = self.losses([rows[item] for item in index.tolist()], cores[at].to(self.loaded.device))
            table[at, index] = losses.float().cpu()
        return table


def tune_cores(
    base: CoreBase,
    start: torch.Tensor,
    rows: Sequence[Encoded],
    left_out: Sequence[frozenset[int]],
    judges: Sequence[Collection[int]],
    recipe: TuningRecipe,
    *,
    enough: Callable[[], bool] = lambda: False,
) -> TunedCores:
    """Train one core a fold on all rows but those that the fold leaves out, all folds side by side.

    Args:
        base: The base with the codec of the cores.
        start: The core that each fold starts from, fp32 [folds, modules, R, R].
        rows: The examples.
        left_out: The indices of the rows that each fold is not trained on.
        judges: The indices of the rows among these on which each fold is judged.
        recipe: How to train.
        enough: Called before each step but the first; True ends the training.
    """
    cores = torch.nn.Parameter(start.detach().clone().to(base.loaded.device, torch.float32))
    optimizer = torch.optim.Adam([cores], lr=recipe.learning_rate)
    shuffler = random.Random(recipe.seed)
    plans = [_batches([at for at in range(len(rows)) if at not in out], recipe, shuffler) for out in left_out]
    judged = [(fold, at) for fold, own in enumerate(judges) for at in sorted(own)]
    held_out: list[tuple[int, float]] = []
    step, stopped = 0, False
    while True:
        if judged and (step % recipe.judge_every == 0 or step == recipe.steps):
            held_out.append((step, _held_out(base, cores, rows, judged)))
            best, _ = min(held_out, key=lambda item: item[1])
            if step - best >= recipe.patience:
                break
        stopped = 0 < step < recipe.steps and enough()
        if step == recipe.steps or stopped:
            break
        drawn = [(fold, at) for fold, plan in enumerate(plans) for at in next(plan)]
        folds = torch.tensor([fold for fold, _ in drawn], device=cores.device)
        losses = base.losses([rows[at] for _, at in drawn], cores[folds])
        sizes = folds.bincount(minlength=len(left_out))
        optimizer.zero_grad(set_to_none=True)
        (losses / sizes[folds]).sum().backward()  # each fold's own mean: folds do not share a core
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup)
        optimizer.step()
        step += 1
    return TunedCores(cores.detach().cpu(), step, stopped, tuple(held_out))


def _held_out(base: CoreBase, cores: torch.Tensor, rows: Sequence[Encoded], judged: list[tuple[int, int]]) -> float:
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(judged), ROWS):
            part = judged[start : start + ROWS]
            folds = torch.tensor([fold for fold, _ in part], device=cores.device)
            total += float(base.losses([rows[at] for _, at in part], cores[folds]).double().sum())
    return total / len(judged)


def _batches(indices: Sequence[int], recipe: TuningRecipe, shuffler: random.Random) -> Iterator[list[int]]:
    """Yield batches for ever: each pass over the indices is a shuffle, and what it leaves over opens the next."""
    size, waiting = min(recipe.batch_size, len(indices)), list[int]()
    while True:
        while len(waiting) < size:
            waiting += shuffler.sample(indices, len(indices))
        yield waiting[:size]
        waiting = waiting[size:]
