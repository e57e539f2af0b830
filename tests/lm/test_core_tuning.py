"""Cores that are trained on a few examples: each fold apart, and none on what it is judged by."""

from dataclasses import replace

import pytest
import torch

from icmlora_cli.lm.core_tuning import CoreBase, CoreFolds, TuningRecipe, tune_cores
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
    return [encode(loaded.family, QA, item) for item in examples]


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
    folds = CoreFolds(zeros(on_base, 3), [frozenset({0}), frozenset({1, 2}), frozenset()], [(0,), (1, 2), ()])
    other = CoreFolds(torch.full_like(zeros(on_base, 3), 0.01), folds.left_out, folds.judges)
    recipe = replace(RECIPE, learning_rate=0.02)
    both, beside = tune_cores(on_base, rows, [folds, other], recipe)
    assert [step for step, _ in both.curve] == [0, 2, 4, 6]
    assert (both.steps, both.held_out) == min(both.curve, key=lambda item: item[1])
    (alone,) = tune_cores(on_base, rows, [folds], recipe)
    assert torch.allclose(alone.cores, both.cores, atol=1e-5) and not torch.allclose(both.cores, beside.cores)
    strange = [rows_of(on_base.loaded, "owl")[0], *rows[1:]]
    (changed,) = tune_cores(on_base, strange, [folds], replace(recipe, judge_every=6, patience=100))
    (same,) = tune_cores(on_base, rows, [folds], replace(recipe, judge_every=6, patience=100))
    assert changed.steps == same.steps == 6
    assert torch.allclose(changed.cores[0], same.cores[0], atol=1e-5)  # it never saw row 0
    assert not torch.allclose(changed.cores[1], same.cores[1], atol=1e-4)
    assert not torch.allclose(changed.cores[2], same.cores[2], atol=1e-4)  # this one leaves nothing out
    table = on_base.scores(rows, same.cores)
    assert same.held_out == pytest.approx(float(torch.cat([table[0, [0]], table[1, [1, 2]]]).mean()), rel=1e-4)


def test_it_learns_and_ends_where_it_is_told(on_base: CoreBase) -> None:
    rows = rows_of(on_base.loaded)
    judged = CoreFolds(zeros(on_base, 2), [frozenset({3}), frozenset()], [(3,), ()])
    (learned,) = tune_cores(on_base, rows, [judged], replace(RECIPE, steps=20))
    before, after = on_base.scores(rows, torch.stack([zeros(on_base, 1)[0], learned.cores[1]])).mean(1).tolist()
    assert learned.steps > 0 and after < before - 0.03  # 16 numbers a module of a random model cannot do much
    (short,) = tune_cores(on_base, rows, [judged], replace(RECIPE, judge_every=4), enough=lambda step: step == 3)
    assert [step for step, _ in short.curve] == [0, 3]
    worse = [*rows[:3], rows_of(on_base.loaded, "dog")[3]]
    impatient = replace(RECIPE, steps=40, patience=4, learning_rate=1.0)
    (ended,) = tune_cores(on_base, worse, [judged], impatient)
    assert 4 <= ended.curve[-1][0] - ended.steps < 8 and ended.curve[-1][0] < 40
    (again,) = tune_cores(on_base, worse, [judged], impatient)
    assert torch.equal(again.cores, ended.cores)


def test_the_worst_of_several_starts_is_given_up_and_the_others_go_on(on_base: CoreBase) -> None:
    rows = rows_of(on_base.loaded)
    near = CoreFolds(zeros(on_base, 2), [frozenset({0}), frozenset()], [(0,), ()])
    far = CoreFolds(torch.full_like(zeros(on_base, 2), 3.0), near.left_out, near.judges, rate=0.01)
    recipe = replace(RECIPE, narrow_at=(2,), worse=1.0)
    kept, given_up = sorted(tune_cores(on_base, rows, [near, far], recipe), key=lambda item: -len(item.curve))
    assert [step for step, _ in kept.curve] == [0, 2, 4, 6]
    assert [step for step, _ in given_up.curve] == [0, 2]
    assert given_up.held_out > min(nll for step, nll in kept.curve if step <= 2)
    unlike = tune_cores(on_base, rows, [near, far], replace(recipe, worse=100.0))  # none is that much worse
    assert [[step for step, _ in item.curve] for item in unlike] == [[0, 2, 4, 6]] * 2
    (alone,) = tune_cores(on_base, rows, [near], recipe)
    assert [step for step, _ in alone.curve] == [0, 2, 4, 6]
