"""Intervals and tests: right on cases that can be worked out, and the same each time."""

import math

import numpy as np
import pytest

from icmlora_cli.report.statistics import Resampler, Scored, interval, recovered


def scored(*values: float, metric: str = "exact_match") -> Scored:
    return Scored(metric, tuple(values), (1.0,) * len(values))


def test_a_figure_is_the_mean_and_its_interval_that_of_a_proportion() -> None:
    item = scored(*([1.0] * 50 + [0.0] * 50))
    found = Resampler(4000, 0).figure("task", item)
    assert found.value == 0.5
    half = 1.96 * math.sqrt(0.25 / 100)  # of a binomial proportion
    assert found.low == pytest.approx(0.5 - half, abs=0.015) and found.high == pytest.approx(0.5 + half, abs=0.015)
    assert Resampler(4000, 0).figure("task", item) == found
    other = item.resampled("task", resamples=50, seed=1)
    assert other.tolist() != item.resampled("task", resamples=50, seed=0).tolist()


def test_no_spread_no_interval() -> None:
    found = Resampler(200, 0).figure("task", scored(1.0, 1.0, 1.0))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_perplexity_and_ratios_are_of_sums_not_means_of_ratios() -> None:
    item = Scored("perplexity", (2.0, 30.0), (1.0, 10.0))
    assert item.value == pytest.approx(math.exp(32 / 11))
    bits = Scored("bits_per_character", (10.0, 90.0), (10.0, 30.0))
    assert bits.value == pytest.approx(2.5)
    assert item.resampled("t", resamples=50, seed=0).min() >= math.exp(2) - 1e-9


def test_a_mean_over_tasks_counts_tasks_alike_and_resamples_them() -> None:
    rows = [("a", scored(*[1.0] * 100)), ("b", scored(*[0.0] * 10))]
    value, boots = Resampler(4000, 0).mean("seen", rows)
    assert value == 0.5
    assert set(np.unique(boots)) == {0.0, 0.5, 1.0}  # which tasks were drawn: all examples of each are alike
    assert np.mean(boots == 0.5) == pytest.approx(0.5, abs=0.03)


def test_differences_are_paired() -> None:
    first = scored(*(float(index % 2) for index in range(40)))
    found = Resampler(500, 0).combined("seen", [[("t", first)], [("t", first)]], lambda one, two: one - two)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_sign_flips() -> None:
    worse, better = scored(*[0.0] * 12), scored(*[1.0] * 12)
    resampler = Resampler(100, 0)
    assert resampler.sign_flip_p("seen", [("t", better, better)]) == 1.0
    p = resampler.sign_flip_p("seen", [("t", better, worse)], flips=20000)
    assert p == pytest.approx(2 / 2**12, rel=0.8)  # only all signs alike reach it: exact test 2 / 4096
    half = scored(*[0.0, 1.0] * 6)
    flipped = scored(*[1.0, 0.0] * 6)
    assert resampler.sign_flip_p("seen", [("t", half, flipped)]) == 1.0


def test_recovered() -> None:
    found = recovered(np.array([0.5, 1.0, 0.3]), np.array([0.0, 0.0, 0.3]), np.array([1.0, 0.5, 0.3]))
    assert found[:2].tolist() == [0.5, 2.0] and math.isnan(found[2])
    assert interval(0.5, np.array([math.nan, 0.4, 0.6])).low == pytest.approx(0.405)
