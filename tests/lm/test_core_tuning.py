"""Cores that are trained on a few examples: each fold apart, and none on what it is judged by."""

from dataclasses import replace

import pytest
import torch

from icmlora_cli.lm.core_tuning import CoreBase, TuningRecipe, tune_cores
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import Encoded, encode
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import QA
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.frame import FrameSpec, seeded_frame
from icmlora_cli.weights.merge import merged

RECIPE = TuningRecipe(steps=6, learning_rate=0.05, warmup=2, batch_size=2, judge_every=2, patience=100)


def rows_of(loaded: LoadedBase, word: str = "cat", count: int = 4) -> list[Encoded]:
    examples = [Example("word " * (index + 1), word) for index in range(count)]
    return [encode(loaded.tokenizer, QA, item) for item in examples]


@pytest.fixture
def on_base(tiny_base: Base) -> CoreBase:
    loaded = load_base(tiny_base, device="cpu")
    layout = target_layout(loaded.model, "auto")
    return CoreBase(loaded, seeded_frame(layout, FrameSpec(0, 4), tiny_base.model_id))


def zeros(base: CoreBase, count: int) -> torch.Tensor:
    return torch.zeros(count, len(base.codec.layout.modules), base.codec.width, base.codec.width)


def test_scores_are_those_of_the_merged_adapter(on_base: CoreBase) -> None:
    rows = rows_of(on_base.loaded)
    cores = torch.randn(zeros(on_base, 3).shape, generator=torch.Generator().manual_seed(0)) * on_base.codec.mask()
    table = on_base.scores(rows, cores)
    for own, core in zip(table, cores, strict=True):
        with merged(on_base.loaded.model, on_base.codec.decode(core)):
            assert own.tolist() == pytest.approx(score_rows(on_base.loaded, rows).nll, abs=1e-4)


def test_folds_are_trained_apart_and_not_on_what_judges_them(on_base: CoreBase) -> None:
    rows = rows_of(on_base.loaded)
    out = [frozenset({0}), frozenset({1, 2})]
    both = tune_cores(on_base, zeros(on_base, 2), rows, out, out, RECIPE)
    assert both.steps == 6 and [step for step, _ in both.held_out] == [0, 2, 4, 6] and not both.stopped
    strange = [rows_of(on_base.loaded, "owl")[0], *rows[1:]]
    other = tune_cores(on_base, zeros(on_base, 2), strange, out, out, RECIPE)
    assert torch.allclose(other.cores[0], both.cores[0], atol=1e-6)  # it never saw row 0
    assert not torch.allclose(other.cores[1], both.cores[1], atol=1e-4)
    assert other.held_out[0][1] != both.held_out[0][1]
    table = on_base.scores(rows, both.cores)
    wanted = torch.cat([table[0, [0]], table[1, [1, 2]]]).mean()
    assert both.held_out[-1][1] == pytest.approx(float(wanted), rel=1e-4)


def test_it_learns_and_ends_where_it_is_told(on_base: CoreBase) -> None:
    rows = rows_of(on_base.loaded)
    alone = tune_cores(on_base, zeros(on_base, 1), rows, [frozenset()], [()], replace(RECIPE, steps=20))
    assert alone.held_out == () and alone.steps == 20
    before, after = on_base.scores(rows, torch.cat([zeros(on_base, 1), alone.cores])).mean(1).tolist()
    assert after < before - 0.03  # 16 numbers a module of a random model cannot do much
    short = tune_cores(on_base, zeros(on_base, 1), rows, [frozenset()], [()], RECIPE, enough=lambda: True)
    assert short.steps == 1 and short.stopped
    judged = [frozenset({3})]
    worse = [*rows[:3], rows_of(on_base.loaded, "dog")[3]]
    patient = replace(RECIPE, steps=40, patience=4, learning_rate=1.0)
    ended = tune_cores(on_base, zeros(on_base, 1), worse, judged, judged, patient)
    assert ended.steps < 40 and ended.steps - ended.best[0] >= 4
    again = tune_cores(on_base, zeros(on_base, 1), worse, judged, judged, patient)
    assert torch.equal(again.cores, ended.cores)
