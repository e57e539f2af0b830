"""Rows a second of episodes through the frozen base, and what a step spends its time on.

``train`` runs twice as it is, in an empty registry, on built-in tasks: once for the rows a second, once with the parts
of a step timed (on a device that computes while the host goes on, with a wait around each part). The baseline is the
base alone: forward and backward passes of the same rows, without adapters and without a generator, which is the least
that an episode can take. The first step and the last one, which also looks at the result, are left out. How often a
step waits for its device is counted in ``tests/sim/test_waits.py``.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedTokenizerBase

from icmlora_cli.config.recipes import resolve as resolve_recipe
from icmlora_cli.config.train import TrainRecipe, nested
from icmlora_cli.disk.home import Home
from icmlora_cli.generator import networks
from icmlora_cli.generator.reader import AttentionReader
from icmlora_cli.lm.batching import TokenBatch, answer_log_probs
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.workflows.base.pull import resolve
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.train import episodes, train

FORWARD, BACKWARD = "forward through the base", "backward through the base"
GENERATOR, GENERATOR_BACK = "forward through the generator", "backward through the generator"
OPTIMISER, DRAWING, BATCHES, TOKENS = "optimiser", "drawing rows and supports", "batches", "tokenisation"
PARTS: Sequence[tuple[str, object, str]] = (
    (FORWARD, TokenBatch, "logits"),
    (FORWARD, episodes, "of_logits"),
    (BACKWARD, torch.autograd, "grad"),
    (GENERATOR, networks.TokenCVAE, "read"),
    (GENERATOR, networks.TokenCVAE, "prior"),
    (GENERATOR, networks.TokenCVAE, "decode"),
    (GENERATOR, AttentionReader, "forward"),
    (GENERATOR, episodes, "contrast"),
    (GENERATOR_BACK, torch.autograd, "backward"),
    (OPTIMISER, torch.optim.AdamW, "step"),
    (OPTIMISER, torch.optim.AdamW, "zero_grad"),
    (OPTIMISER, torch.nn.utils, "clip_grad_norm_"),
    (DRAWING, episodes.EpisodeTerm, "_rows"),
    (DRAWING, episodes.EpisodeTerm, "_slot"),
    (DRAWING, episodes.EpisodeTerm, "_disturbed"),
    (DRAWING, episodes, "draw_support"),
    (BATCHES, LoadedBase, "batch"),
    (TOKENS, PreTrainedTokenizerBase, "encode"),
)


@dataclass
class Parts:
    """Seconds by what they were spent on; a part within another one counts for itself alone."""

    device: torch.device
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time all parts within the body."""
        with ExitStack() as stack:
            for part, owner, name in PARTS:
                stack.enter_context(patch.object(owner, name, self._wrapped(part, getattr(owner, name))))
            yield

    def _wrapped(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def measured(*args: object, **kwargs: object) -> object:
            self._wait()
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._wait()
                whole = time.perf_counter() - started
                self.seconds[part] += whole - self._inner.pop()
                if self._inner:
                    self._inner[-1] += whole

        return measured

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


@dataclass
class Watch:
    """When the second step of a training began and the last but one ended, and what the time between was spent on.

    Args:
        steps: the number of steps of the training.
        parts: the parts, where they are timed.
    """

    steps: int
    parts: Parts | None = None
    before: dict[str, float] = field(default_factory=dict)
    between: dict[str, float] = field(default_factory=dict)
    made: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    last: float = 0.0

    def __call__(self, progress: Progress) -> None:
        """Note the time after the first step and after the last but one."""
        if progress.stage != "train" or progress.done not in (1, self.steps - 1):
            return
        found = {} if self.parts is None else dict(self.parts.seconds)
        if progress.done == 1:
            self.before, self.first = found, time.perf_counter()
        else:
            self.between = {part: seconds - self.before.get(part, 0.0) for part, seconds in found.items()}
            self.last = time.perf_counter()

    @property
    def counts(self) -> bool:
        """Whether the training is between the two."""
        return bool(self.first) and not self.last

    @property
    def seconds(self) -> float:
        """The seconds of all steps but the first and the last."""
        return self.last - self.first


def recipe_of(options: argparse.Namespace) -> TrainRecipe:
    """Return the recipe, with episodes from the first step on, on built-in tasks alone, and without validation."""
    recipe = resolve_recipe(TrainRecipe, options.recipe, "train", {})
    if recipe.episodes is None:
        raise SystemExit(f"{options.recipe} has no episodes")
    changes = {"rows": options.rows, "per_family": options.per_family}
    own = recipe.episodes.model_dump() | {name: value for name, value in changes.items() if value is not None}
    own |= {"validation_tasks": 0, "validate_every": options.steps + 1}
    steps = {"steps": options.steps, "pretrain_steps": 0, "save_every": options.steps + 1}
    return TrainRecipe.model_validate(nested(recipe.flat() | steps | {"episodes": own}))


def alone(loaded: LoadedBase, batches: Sequence[TokenBatch]) -> float:
    """Return the seconds of forward and backward passes of batches through the base, to its embeddings."""
    leaf = loaded.model.get_input_embeddings().register_forward_hook(lambda _, args, output: output.requires_grad_())

    def run(batch: TokenBatch) -> None:
        loss = -answer_log_probs(loaded.model, batch)[0].sum()
        torch.autograd.backward(loss)
        loss.item()  # which waits until it is computed

    try:
        run(batches[0])  # not counted: it takes memory
        started = time.perf_counter()
        for batch in batches:
            run(batch)
        return time.perf_counter() - started
    finally:
        leaf.remove()


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--recipe", type=Path, default=Path("train/smollm2-episodes"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, help="rows of a step; the recipe's by default")
    parser.add_argument(
        "--per-family", type=int, default=1, help="tasks of each family: reading their texts takes long"
    )
    parser.add_argument("--device")
    options = parser.parse_args()
    if options.steps < 3:
        parser.error("--steps 3 or more: the first and the last are left out")
    recipe, own = recipe_of(options), Home.from_environment()
    assert recipe.episodes is not None
    base = resolve(options.base, own)
    loaded = load_base(base, device=options.device)
    timed, plain = Watch(options.steps, Parts(loaded.device)), Watch(options.steps)
    batches: list[TokenBatch] = []

    def kept(base: LoadedBase, rows: Sequence[Encoded]) -> TokenBatch:
        batch = base.family.collate(rows, base.device)
        assert isinstance(batch, TokenBatch)
        if plain.counts:
            batches.append(batch)
        return batch

    with tempfile.TemporaryDirectory() as folder:
        home = Home(root=Path(folder, "home"), cache=own.cache)
        assert timed.parts is not None
        with timed.parts.timed():
            train.run([], base, recipe, home, name="timed", device=options.device, on_progress=timed)
        with patch.object(LoadedBase, "batch", kept):
            train.run([], base, recipe, home, name="plain", device=options.device, on_progress=plain)
    steps, rows = options.steps - 2, recipe.episodes.rows
    tokens = sum(int(batch.attention_mask.sum()) for batch in batches) / (rows * steps)
    least, speed = rows * steps / alone(loaded, batches), rows * steps / plain.seconds
    print(f"{rows} rows a step, {tokens:.1f} tokens a row\n")
    print("| what | rows/s | ratio |\n|---|---|---|")
    print(f"| the base alone | {least:.2f} | 1.00 |\n| episodes | {speed:.2f} | {speed / least:.2f} |\n")
    print("| part of a step | ms | share |\n|---|---|---|")
    rest = timed.seconds - sum(timed.between.values())
    order = dict.fromkeys(part for part, *_ in PARTS)
    for part, seconds in [*((part, timed.between.get(part, 0.0)) for part in order), ("all else", rest)]:
        print(f"| {part} | {1000 * seconds / steps:.1f} | {seconds / timed.seconds:.3f} |")
    before = timed.first - timed.made
    print(f"\nbefore the second step: {before:.1f} s, of which {timed.before.get(TOKENS, 0.0):.1f} s of tokenisation")


if __name__ == "__main__":
    main()
