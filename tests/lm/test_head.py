"""The output head reads contiguous hidden states in every forward pass: else its weight is read once a row."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.lm.batching import answer_log_probs, collate
from icmlora_cli.lm.decode import greedy
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.perplexity import score_texts
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.stream import Sampling, write
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.frame import FrameSpec, seeded_frame

ROWS = [Encoded((10, 11, 12 + index), (20, 21)[: 1 + index % 2]) for index in range(6)]


@contextmanager
def watched(loaded: LoadedBase) -> Iterator[list[bool]]:
    """Yield whether each input that the head's own forward pass has seen was contiguous."""
    seen: list[bool] = []

    def look(_: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append(args[0].is_contiguous())

    handle = loaded.model.get_output_embeddings().register_forward_hook(look)
    yield seen
    handle.remove()


@pytest.mark.parametrize("parametrization", ["lora", "frame"])
def test_in_training(tiny_base: Base, tmp_path: Path, parametrization: str) -> None:
    loaded = load_base(tiny_base, device="cpu")
    values = {"steps": 2, "batch_size": 4, "rank": 2, "keep": 1, "parametrization": parametrization}
    recipe = HarvestRecipe.model_validate(values)
    with watched(loaded) as seen, trainer_of(loaded, recipe) as trainer:
        finetune(trainer, ROWS, state=tmp_path / "state", identity="x", on_step=lambda step, loss: None)
    assert seen == [True] * 2  # once a step


def test_in_scoring(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    with watched(loaded) as seen:
        score_rows(loaded, ROWS)
    assert seen and all(seen)
    with watched(loaded) as seen:
        score_texts(loaded, ["one two three", "four"])
    assert seen and all(seen)


def test_in_episodes(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    layout = target_layout(loaded.model, HarvestRecipe().target_modules)
    frame = seeded_frame(layout, FrameSpec(0, 2), loaded.base.model_id)
    rows = RowCores(loaded.model, [item.name for item in layout.modules], frame.left, frame.right)
    cores = torch.zeros(len(ROWS), len(layout.modules), 2, 2, requires_grad=True)
    with watched(loaded) as seen, rows.applied(cores):
        log_probs, _ = answer_log_probs(loaded.model, collate(ROWS, 0, loaded.device))
        log_probs.sum().backward()
    assert cores.grad is not None and seen == [True]


def test_in_decoding(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    with watched(loaded) as seen:
        greedy(loaded, ROWS)
    assert seen and all(seen)
    with watched(loaded) as seen:
        write(loaded, [10, 11, 12], Sampling(3, 0.0), lambda piece: None, lambda: False)
    assert seen and all(seen)
